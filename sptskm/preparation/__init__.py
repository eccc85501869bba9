"""Make missing masks and skeletons of a data set from its frames."""

"""What a data set without masks or skeletons lacks, made from its frames: silhouettes and 3D skeletons."""

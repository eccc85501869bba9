"""How the images of networks that were trained on ImageNet are normalised: red, green, blue, as shares of 255."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

from hiera_video.terminal import did_you_mean

__all__ = ["did_you_mean"]

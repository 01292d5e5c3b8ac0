import sys

if sys.path[0] == "" or not sys.path[0].endswith("site-packages"):
    # `python -m` searches the current folder first, where a folder of the user's own called
    # `datamodules` would be taken for ours. Last is early enough for modules of the user's own.
    sys.path.append(sys.path.pop(0))

from hiera_video.cli import main

if __name__ == "__main__":
    main()

from hiera_video.running.configurations import configurations, overview


def test_the_overview_keeps_folders_and_names_apart():
    words = overview().split()
    for name in configurations():
        folder, _, rest = name.partition("/")
        assert f"{folder}/" in words
        assert rest in words

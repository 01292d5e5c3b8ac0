from hypothesis import settings

# A machine that does other work, too, may take any time for an example.
settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")

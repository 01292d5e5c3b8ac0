from tests.models.conftest import _one_thread  # noqa: F401
from tests.quick_trainer import _quiet_lightning  # noqa: F401

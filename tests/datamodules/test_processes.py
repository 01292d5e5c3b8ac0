import pytest

from datamodules.processes import in_first_process
from tests.fake_processes import two_processes


def test_the_first_process_works_and_all_have_its_result():
    results = iter(["first"])
    both = [in_first_process(trainer, lambda: next(results)) for trainer in two_processes()]
    assert both == ["first", "first"]
    assert in_first_process(None, lambda: "alone") == "alone"


@pytest.mark.parametrize("kind", [OSError, KeyError, StopIteration])
def test_any_error_is_raised_in_all_processes(kind):
    def work():
        errors.append(kind("why"))
        raise errors[-1]

    errors = []
    for trainer in two_processes():
        with pytest.raises(kind) as error:
            in_first_process(trainer, work)
        assert error.value is errors[0]
    assert len(errors) == 1

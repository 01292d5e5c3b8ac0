from types import SimpleNamespace

import pytest

from datamodules.processes import in_first_process


def processes():
    """Trainers of two processes; what the first one sends reaches the second one."""
    sent = []

    def broadcast(value):
        sent.append(value)
        return sent[0]

    strategy = SimpleNamespace(broadcast=broadcast)
    return [SimpleNamespace(is_global_zero=rank == 0, strategy=strategy) for rank in range(2)]


def test_the_first_process_works_and_all_have_its_result():
    results = iter(["first"])
    assert [in_first_process(t, lambda: next(results)) for t in processes()] == ["first"] * 2  # pyright: ignore
    assert in_first_process(None, lambda: "alone") == "alone"


@pytest.mark.parametrize("kind", [OSError, KeyError, StopIteration])
def test_any_error_is_raised_in_all_processes(kind):
    def work():
        errors.append(kind("why"))
        raise errors[-1]

    errors = []
    for trainer in processes():
        with pytest.raises(kind) as error:
            in_first_process(trainer, work)  # pyright: ignore
        assert error.value is errors[0]
    assert len(errors) == 1

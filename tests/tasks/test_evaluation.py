"""The hooks of evaluation, as a real trainer calls them."""

import pytest
import torch
from lightning import Callback, LightningDataModule
from torch.utils.data import DataLoader
from torchmetrics import SumMetric

from hiera_video.augment.basic import Normalize
from hiera_video.tasks.evaluation import EvaluatedTask
from tests.quick_trainer import quick_trainer


class Numbers(LightningDataModule):
    """Two batches a split: 1 and 2 to validate, 10 and 20 to test."""

    def train_dataloader(self):
        return DataLoader(torch.tensor([100.0, 200.0]))

    def val_dataloader(self):
        return DataLoader(torch.tensor([1.0, 2.0]))

    def test_dataloader(self):
        return DataLoader(torch.tensor([10.0, 20.0]))


class Total(EvaluatedTask):
    """Adds up the numbers of a split."""

    def __init__(self):
        super().__init__(Normalize())
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.metrics["val"], self.metrics["test"] = SumMetric(), SumMetric()
        self.logged = []

    def training_step(self, batch, batch_idx):
        return self.weight * batch.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def evaluate(self, batch, split):
        self.metric(split).update(batch)
        return {"twice": 2 * batch}

    def summarize(self, split):
        total = self.metric(split).compute()
        self.logged.append(float(total))
        return {"total": total}, f"all of {split}"


def test_numbers_are_those_of_one_split_and_begin_anew_each_time():
    task, trainer = Total(), quick_trainer(max_epochs=2)
    trainer.fit(task, datamodule=Numbers())
    assert task.logged == [3, 3]
    assert trainer.callback_metrics["val/total"] == 3
    assert task.results is None  # these are for a test's report
    (numbers,) = trainer.test(task, datamodule=Numbers(), verbose=False)
    assert numbers == {"test/total": 30}
    assert task.results == "all of test"
    trainer.validate(task, datamodule=Numbers(), verbose=False)
    assert task.results == "all of val"


def test_callbacks_get_the_rows():
    rows = []

    class Rows(Callback):
        def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            rows.append(outputs["twice"].item())

    quick_trainer(callbacks=[Rows()]).test(Total(), datamodule=Numbers(), verbose=False)
    assert rows == [20, 40]


def test_a_split_that_is_not_evaluated_has_no_metric():
    task = Total()
    del task.metrics["test"]
    with pytest.raises(KeyError, match="test"):
        quick_trainer().test(task, datamodule=Numbers(), verbose=False)


class Share(Total):
    """Has a result whose mean over three processes is rounded to another number in float32."""

    def summarize(self, split):
        return {"share": 0.11}, None


def test_numbers_are_logged_as_they_are_on_any_number_of_processes():
    trainer = quick_trainer(devices=3, strategy="ddp_fork")
    trainer.validate(Share(), datamodule=Numbers(), verbose=False)
    assert trainer.callback_metrics["val/share"] == torch.tensor(0.11)

"""What is installed is complete, and a user's folders of the same names do not get in its way."""

import shutil
import subprocess
import sys

from tests.integration.conftest import ROOT, TINY_DATA, TINY_MAE, TINY_RUN, run


def test_an_installed_wheel_runs_beside_hostile_folders(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    subprocess.run([*build, tmp_path / "dist", ROOT], check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    # An environment of its own that borrows the heavy packages of this one, but not this checkout.
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    site = next((venv / "lib").glob("python*/site-packages"))
    borrowed = next(p for p in sys.path if p.endswith("site-packages"))
    (site / "borrowed.pth").write_text(borrowed + "\n")
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "--no-deps"]
    subprocess.run([*pip, "--force-reinstall", wheel], check=True, capture_output=True)

    work = tmp_path / "work"
    for name in ("conf", "datamodules"):
        (work / name).mkdir(parents=True)
        (work / name / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    (work / "conf/config.yaml").write_text("name: wrong\n")
    (work / "conf/experiment/demo").mkdir(parents=True)
    (work / "conf/experiment/demo/pretrain.yaml").write_text("name: wrong\n")
    words = ["fit", "--config", "demo/pretrain", *TINY_MAE, *TINY_DATA, *TINY_RUN]
    output = run(venv / "bin/hiera-video", *words, "run_dir=a", cwd=work, module=False)
    assert "fit demo/pretrain" in output
    assert (work / "a/checkpoints/last.ckpt").exists()

    # `python -m` puts the current folder first on the path; ours must still be found.
    code = subprocess.run(
        [venv / "bin/python", "-m", "hiera_video", *words, "trainer.max_epochs=1", "run_dir=b"],
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert code.returncode == 0, code.stdout + code.stderr
    where = [venv / "bin/python", "-c", "import hiera_video; print(hiera_video.__file__)"]
    file = subprocess.run(where, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert file.startswith(str(site))
    shutil.rmtree(venv)

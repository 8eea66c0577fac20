#!/usr/bin/env bash
# Makes virtual environments, builds the wheel, and runs mypy and pytest on what was installed.
# LEPTON_PYTHON chooses the interpreter; LEPTON_PYTHON_EXTRA names more packages to install, such as
# "torch onnx pandas", whose tests are skipped otherwise. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
target="${CARGO_TARGET_DIR:-$(cd ../.. && pwd)/target}/python"
mkdir -p "$target"

"${LEPTON_PYTHON:-python3}" -m venv "$target/build"
"$target/build/bin/pip" install -q "maturin>=1.9,<2" mypy numpy
rm -rf "$target/wheels"
"$target/build/bin/maturin" build --release -q -o "$target/wheels"

rm -rf "$target/test"
"${LEPTON_PYTHON:-python3}" -m venv "$target/test"
"$target/test/bin/pip" install -q "$target"/wheels/*.whl
# With nothing but the wheel and NumPy first.
"$target/test/bin/python" -I -c "import lepton_ai; print('lepton_ai', lepton_ai.__version__, 'imports')"
# shellcheck disable=SC2086 # a list of words
"$target/test/bin/pip" install -q pytest hypothesis ${LEPTON_PYTHON_EXTRA:-}

"$target/build/bin/mypy" --config-file pyproject.toml --python-executable "$target/test/bin/python"
exec "$target/test/bin/python" -m pytest -p no:cacheprovider tests "$@"

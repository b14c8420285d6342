# `just` lists everything.
set positional-arguments

export UV_NO_SYNC := env("UV_NO_SYNC", "")

_default:
    @just --list --unsorted

# format, lint and type-check everything
check:
    uv run ruff format --check .
    uv run ruff check .
    uv run pyright

# put the code into shape
fix:
    uv run ruff format .
    uv run ruff check --fix .

# the quick tests (the README's command)
test *args:
    uv run pytest "$@"

# all tests, the slow ones and those in a browser included
test-all *args:
    uv run pytest -m "not gpu and not docker" "$@"

# the whole fault matrix, with its table; stores lie in memory where there is a /dev/shm (TMPDIR says otherwise)
faults *args:
    TMPDIR="${TMPDIR:-$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)}" PYTHONDONTWRITEBYTECODE= \
        uv run python -m tests.faults "$@"

# every benchmark, with its counterpart beside it
bench *args:
    uv run python -m bench "$@"

# all that only a GPU can show; says so where none answers: just gpu-check [CHECKOUT_OF_NUNIF]
gpu-check *args:
    uv run --extra gpu python -m bench.gpu_check "$@"

# what trains it is tested with torch, which the application does not need
test-training *args:
    uv run --with "torch>=2.9" --with onnx pytest tests/unit/test_training.py tests/unit/test_training_weights.py \
        tests/unit/test_optimisers.py "$@"

# train the depth network (hours; resumes), see docs/relief.md
train-relief *args:
    uv run --with "torch>=2.9" --with onnx python -m inference.training.train --init inference/depth/relief.onnx "$@"

# convert a generated clip and stay up to watch it
demo:
    uv run --no-dev stereospot demo

# look at every page of the running product: docs/images/page-*.webp
screenshots *args:
    uv run python -m tests.browser.screenshots "$@"

# what CI runs
ci:
    bash .ci/run

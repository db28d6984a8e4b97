# Everything a person runs. `make` alone prints this list.
PYTHON ?= python3
# Which torch build: cpu, cu126, cu130, ... or auto (by the driver).
TORCH_BACKEND ?= $(if $(shell command -v nvidia-smi 2>/dev/null),auto,cpu)
DATASET ?= gres
ROOT ?=
OUT ?=
ARGS ?=
# Processes of the quick tests; a file stays in one of them.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH_PAIR := $(shell grep '^torch' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help setup demo shards test test-slow test-gpu lint fmt check golden bench bench-scale bench-gpu bench-speed bench-cpu clean

help: ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON, TORCH_BACKEND (cpu, cu126, cu130, auto), DATASET, ROOT, OUT, ARGS (further options), JOBS"

setup: $(READY) ## make .venv with everything in it (once)

# sam2 is a source package that wants torch at build time, so torch comes first and sam2 builds without isolation.
# A CPU build is taken from pip's own sources if they hold one; else uv takes the build from PyTorch's index.
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip setuptools wheel
	if [ "$(TORCH_BACKEND)" != cpu ] || ! $(BIN)/pip install -q $(patsubst torch==%,torch==%+cpu,$(TORCH_PAIR)) 2>/dev/null; then \
		$(BIN)/pip install -q uv && $(BIN)/uv pip install -q --python $(BIN)/python --torch-backend $(TORCH_BACKEND) $(TORCH_PAIR); fi
	SAM2_BUILD_CUDA=0 $(BIN)/pip install -q --no-build-isolation -c constraints.txt sam2
	$(BIN)/pip install -q -c constraints.txt -e '.[run,train,s3]' --group dev
	touch $@

demo: $(READY) ## the main job on the bundled sample: shards, check, pictures
	$(BIN)/samtok-data tokenize --dataset gres --root samples/gres --out demo-out --split all --tokenizer small --samples-per-shard 24 --overwrite
	$(BIN)/samtok-data verify demo-out
	$(BIN)/samtok-data decode demo-out/gres/train/gres-train-000000.tar --out demo-out/overlays

shards: $(READY) ## build DATASET's shards from ROOT into OUT; does nothing when they are complete
	@test -n "$(ROOT)" -a -n "$(OUT)" || { echo "usage: make shards DATASET=gres ROOT=folder OUT=folder [ARGS='further options']"; exit 2; }
	$(BIN)/samtok-data tokenize --dataset $(DATASET) --root "$(ROOT)" --out "$(OUT)" $(ARGS)

test: $(READY) ## the quick tests
	$(BIN)/pytest -q -n $(JOBS) --dist loadfile -m "not slow and not gpu" $(ARGS)

test-slow: $(READY) ## the tests that take minutes: drivers and actors killed at ten moments, all 128 photographs
	$(BIN)/pytest -q -m "slow" --timeout 3000 $(ARGS)

test-gpu: $(READY) ## the tests that need a GPU
	$(BIN)/pytest -q -m "gpu" $(ARGS)

lint: $(READY) ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

fmt: $(READY) ## format the code and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test ## what CI runs

golden: $(READY) ## write the golden numbers of the small tokenizer again, after a change that is meant
	$(BIN)/python tests/tokenizer_model/small_golden.py

bench: $(READY) ## planning at full size, Ray Data against the actor pool, mask sources; figures to benchmarks/results
	$(BIN)/python -m benchmarks.plan --out benchmarks/results/plan.json
	$(BIN)/python -m benchmarks.dispatch --out benchmarks/results/dispatch.json
	$(BIN)/python -m benchmarks.mask_sources --out benchmarks/results/mask_sources.json

bench-scale: $(READY) ## mask sources at full size: plans, 10,000 units, resume, requests, bytes; ten minutes
	$(BIN)/python -m benchmarks.scale --out benchmarks/results/scale.json

bench-gpu: $(READY) ## training speed: by masks of an image on one GPU, and two GPUs against one
	$(BIN)/python -m benchmarks.training passes --out benchmarks/results/training_passes.json
	$(BIN)/python -m benchmarks.training workers --out benchmarks/results/training_workers.json

# A folder for 45 GB of made images and their outputs.
SPEED_DATA ?= /tmp/samtok-speed
SPEED := $(BIN)/python -m benchmarks.speed
LARGE := --tokenizer $(SPEED_DATA)/large.safetensors --precision fp16

bench-speed: $(READY) ## the tokenising path on GPUs: stages, files to files, start-up, growth, drift; half an hour
	mkdir -p $(SPEED_DATA)
	test -e $(SPEED_DATA)/large.safetensors || $(BIN)/python -m benchmarks.large_weights $(SPEED_DATA)/large.safetensors
	test -e $(SPEED_DATA)/sa1b/made.json || $(SPEED) data --kind sa1b --images 24000 --root $(SPEED_DATA)/sa1b
	test -e $(SPEED_DATA)/gres/made.json || $(SPEED) data --kind gres --images 6000 --root $(SPEED_DATA)/gres
	$(SPEED) stages $(LARGE) --out benchmarks/results/speed_stages.json
	$(SPEED) sa1b $(LARGE) --root $(SPEED_DATA)/sa1b --out benchmarks/results/speed_sa1b.json
	$(SPEED) sa1b $(LARGE) --root $(SPEED_DATA)/sa1b --masks-per-image 20 --published-seconds 0 --out benchmarks/results/speed_sa1b_20.json
	$(SPEED) gres $(LARGE) --root $(SPEED_DATA)/gres --out benchmarks/results/speed_gres.json
	$(SPEED) gpus $(LARGE) --root $(SPEED_DATA)/sa1b --out benchmarks/results/speed_gpus.json
	$(SPEED) startup $(LARGE) --out benchmarks/results/speed_startup.json
	$(SPEED) growth $(LARGE) --images 256 --out benchmarks/results/speed_growth.json
	$(SPEED) drift $(LARGE) --root $(SPEED_DATA)/sa1b --out benchmarks/results/speed_drift.json
	$(SPEED) projection benchmarks/results/speed_sa1b.json benchmarks/results/speed_sa1b_20.json --out benchmarks/results/speed_projection.json

bench-cpu: $(READY) ## the same on a processor with the small tokenizer: the demo beside the published way, growth
	$(SPEED) cpu --out benchmarks/results/speed_cpu.json
	$(SPEED) growth --device cpu --images 4 --doublings 2 --masks 1 --masks 10 --masks 100 --images-per-tar 4 --out benchmarks/results/speed_cpu_growth.json

clean: ## remove the demo's output and caches, keep .venv
	rm -rf demo-out .pytest_cache .ruff_cache .hypothesis build dist

# Every target sets up what it needs, inside the checkout: tools in .tools, packages in .venv, state in .state.
SHELL := /bin/bash
PYTHON ?= python3.11
POETRY_VERSION := 2.5.1
EXPORT_VERSION := 1.10.1
MIRROR_VERSION := 0.6.5 # lets `make lock` resolve from an index other than PyPI: POETRY_PYPI_MIRROR_URL
POETRY := .tools/poetry/bin/poetry
RUN := .venv/bin
# One process for live speech, one for the parts of the stack: see conftest.py.
TEST_PROCESSES ?= 2
PROJECTS := contracts runtime gateway consumers model_repository persistence client local
export POETRY_VIRTUALENVS_CREATE := false
export POETRY_NO_INTERACTION := 1
export PYTHONUNBUFFERED := 1
unexport PYTHONDONTWRITEBYTECODE # without compiled modules every start is slower

.PHONY: help demo up test trace test-random test-large test-containers test-cluster test-otelcol test-terraform check lock parity bench-latency bench-footprint bench-turns bench-code bench-tracing bench-serving bench-text bench-memory bench-serving-gpu clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

demo: .venv/.installed ## Real speech through the whole embedded stack, on screen and into PostgreSQL
	@$(RUN)/whisperline-local demo

up: .venv/.installed ## The embedded stack, until Ctrl-C
	@$(RUN)/whisperline-local up

test: .venv/.installed ## Every test that this machine can run
	@$(RUN)/whisperline-local prepare
	@$(RUN)/python -m pytest -n $(TEST_PROCESSES) --dist loadgroup --no-loadscope-reorder $(PYTEST_ARGS)

test-random: .venv/.installed ## Every test once, in one process and in random order (SEED= repeats one)
	@$(RUN)/whisperline-local prepare
	@$(RUN)/python -m pytest -p randomly $(SEED:%=--randomly-seed=%) $(PYTEST_ARGS)

test-large: .venv/.installed ## The tests that take eight gigabytes of memory for themselves
	@$(RUN)/python -m pytest -m large $(PYTEST_ARGS)

test-cluster: .venv/.installed .tools/cluster/.installed ## The charts on a real API server (Go 1.26; builds it for ten minutes, once)
	@WHISPERLINE_CLUSTER=$(CURDIR)/.tools/cluster $(RUN)/python -m pytest -m cluster tests/charts $(PYTEST_ARGS)

test-otelcol: .venv/.installed .tools/collector/.installed ## The collector's configuration in a real collector (Go 1.26; builds it for three minutes, once)
	@$(RUN)/python -m pytest tests/collector $(PYTEST_ARGS)

test-containers: .venv/.installed ## The real images and compose.yaml, in a Docker engine of the tests' own (as root)
	@$(RUN)/python -m pytest tests/containers -m containers -s -v $(PYTEST_ARGS)

test-terraform: .venv/.installed ## OpenTofu's validate and test, and a security scan
	@tests/terraform/run

check: .venv/.installed ## Style, types, and that every project's lock is true
	@$(RUN)/ruff format --check .
	@$(RUN)/ruff check .
	@$(RUN)/mypy
	@$(RUN)/mypy conftest.py
	@for project in $(PROJECTS); do $(RUN)/mypy $$project/tests || exit 1; done # one by one: modules share names
	@for project in . $(PROJECTS); do \
	  $(POETRY) check --lock --project $$project >/dev/null || { echo "$$project: pyproject.toml and poetry.lock differ: run 'make lock'"; exit 1; }; \
	done; echo "locks: true"

parity: .venv/.installed .tools/oracle/.installed ## Compare with transformers on torch (an environment of 5 GB)
	@WHISPERLINE_ORACLE_PYTHON=$(CURDIR)/.tools/oracle/bin/python $(RUN)/python -m pytest -m oracle $(PYTEST_ARGS)

bench-latency: .venv/.installed ## From the end of speech to the final, alone and beside other streams
	@$(RUN)/python bench/latency.py

bench-footprint: .venv/.installed ## Start-up, memory and CPU of each process (PEER=../other measures another checkout in turn)
	@$(RUN)/python bench/footprint.py $(PEER:%=--peer %) $(ROUNDS:%=--rounds %)

bench-turns: .venv/.installed ## When turns are ended too early and how long their ends take, by the rule's constants
	@$(RUN)/python bench/turns.py

bench-code: .venv/.installed ## The shape of the code: lengths, private helpers, comments, imports (PEER=../other beside it)
	@$(RUN)/python bench/code_shape.py $(PEER:%=--peer %)

trace: .venv/.installed ## The trace of one sentence as a tree, with the time of each hop
	@PYTHONPATH=tests $(RUN)/python bench/trace_tree.py

bench-tracing: .venv/.installed ## The cost of tracing for a record and a request, switched off and on
	@$(RUN)/python bench/tracing_cost.py

bench-serving: .venv/.installed .tools/peer/.installed ## Speed, accuracy and memory beside faster-whisper (PART= runs one part)
	@$(RUN)/python bench/serving.py $(PART)

bench-text: .venv/.installed .tools/peer/.installed .tools/whisper-live/.installed ## Word error rates of live text and whole files, beside faster-whisper and WhisperLive (ARGS="--only natural")
	@$(RUN)/python bench/text.py $(ARGS)

bench-memory: .venv/.installed ## Memory over 20,000 requests, and with up to 256 at a time
	@$(RUN)/python bench/memory.py

bench-serving-gpu: .venv/.installed $(if $(shell command -v nvidia-smi),.tools/gpu/.installed) ## large-v3-turbo on this machine's NVIDIA GPU (MODEL= for trained weights)
	@PYTHONPATH=$(CURDIR)/.tools/gpu $(RUN)/python bench/serving_gpu.py $(MODEL)

lock: $(POETRY) ## Resolve every project's dependencies anew
	@for project in $(PROJECTS) .; do echo "locking $$project"; $(POETRY) lock --project $$project || exit 1; done

clean: ## Remove tools, packages and state
	rm -rf .tools .venv .state

$(POETRY):
	@command -v $(PYTHON) >/dev/null || { echo "step 'python' failed: $(PYTHON) is not on the PATH; install Python 3.11, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing Poetry $(POETRY_VERSION) into .tools"
	@$(PYTHON) -m venv .tools/poetry || { echo "step 'venv' failed: install the package python3.11-venv"; exit 1; }
	@.tools/poetry/bin/pip install --quiet --disable-pip-version-check --no-compile poetry==$(POETRY_VERSION) \
	  poetry-plugin-export==$(EXPORT_VERSION) poetry-plugin-pypi-mirror==$(MIRROR_VERSION) || { echo "step 'poetry' failed: is a package index in reach of pip?"; exit 1; }

# pip installs what the lock names, checked by hash: unlike Poetry it obeys the user's own index settings.
.venv/.installed: poetry.lock pyproject.toml $(PROJECTS:%=%/pyproject.toml) | $(POETRY)
	@echo "installing packages into .venv (one to two minutes the first time)"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@$(POETRY) export --quiet --with dev --output .tools/all.txt
	@grep -v '^-e ' .tools/all.txt > .tools/requirements.txt
	@$(RUN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r .tools/requirements.txt \
	  || { echo "step 'packages' failed: see above; is a package index in reach of pip?"; exit 1; }
	@$(RUN)/pip install --quiet --disable-pip-version-check --no-deps $(PROJECTS:%=-e ./%) \
	  || { echo "step 'packages' failed: see above; 'make clean' starts afresh"; exit 1; }
	@touch $@

.tools/oracle/.installed: model_repository/oracle-requirements.txt
	@echo "installing torch and transformers into .tools/oracle (5 GB)"
	@$(PYTHON) -m venv .tools/oracle
	@.tools/oracle/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.tools/peer/.installed: bench/peer-requirements.txt
	@echo "installing faster-whisper into .tools/peer"
	@$(PYTHON) -m venv .tools/peer
	@.tools/peer/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.tools/whisper-live/.installed: bench/whisper-live-requirements.txt
	@echo "installing WhisperLive into .tools/whisper-live (5 GB, most of it torch)"
	@$(PYTHON) -m venv .tools/whisper-live
	@.tools/whisper-live/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

.tools/gpu/.installed: bench/gpu-requirements.txt
	@echo "installing ONNX Runtime for CUDA into .tools/gpu (2 GB)"
	@$(RUN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .tools/gpu -r $<
	@touch $@

.tools/cluster/.installed: tests/charts/cluster/build.sh tests/charts/cluster/go.mod
	@command -v go >/dev/null || { echo "step 'go' failed: go is not on the PATH; install Go 1.26"; exit 1; }
	@echo "building kube-apiserver and etcd into .tools/cluster (ten minutes the first time)"
	@bash $< .tools/cluster || { echo "step 'cluster' failed: see above; is a module proxy in reach of go?"; exit 1; }
	@touch $@

.tools/collector/.installed: tests/collector/build.sh tests/collector/main.go tests/collector/go.mod tests/collector/go.sum
	@command -v go >/dev/null || { echo "step 'go' failed: go is not on the PATH; install Go 1.26"; exit 1; }
	@echo "building the OpenTelemetry collector into .tools/collector (three minutes the first time)"
	@bash $< .tools/collector || { echo "step 'collector' failed: see above; is a module proxy in reach of go?"; exit 1; }
	@touch $@

.tools/promtool:
	@echo "fetching promtool from Debian's package prometheus into .tools"
	@mkdir -p .tools/prometheus && cd .tools/prometheus && apt-get download -qq prometheus && \
	  dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && mv usr/bin/promtool ../promtool \
	  || { echo "step 'promtool' failed: on Debian, is its package index there (apt-get update)? Elsewhere put promtool on the PATH"; exit 1; }
	@rm -rf .tools/prometheus

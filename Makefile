# MobiVid: `make reproduce` runs everything, `make test` tests everything. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
# Linux without an NVIDIA GPU: torch's build for processors, a tenth of the size, where its index can be reached.
# TORCH_INDEX= takes the default index's build; any address takes that index.
CPU_INDEX := https://download.pytorch.org/whl/cpu
TORCH_INDEX ?= $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && \
	curl -sfI -m 5 $(CPU_INDEX)/torch/ >/dev/null 2>&1 && echo $(CPU_INDEX))
# Anything after the profile, e.g. make reproduce ARGS="--only 03 04"
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.mobivid-env
# Keep freed memory in the process: see mobivid_core/lab/runner/kernel.py. Other C libraries ignore these.
GLIBC := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=68719476736 MALLOC_TOP_PAD_=268435456

# What torch's CUDA build pins by itself stays out of the lock, and so do systems that are not supported.
UNLOCKED := nvidia-|cuda-|triton==|colorama|pywinpty|httpx2-jsfetch
ENVIRONMENTS := --python-version 3.11 --no-header --no-annotate

.PHONY: lock help env reproduce smoke verify list test test-slow lint lab teaching test-browser site clean

help:
	@echo "make reproduce  environment, then all notebooks at profile laptop; tables and figures in figures/"
	@echo "make smoke      the same chain at the smallest sizes: proves that everything runs"
	@echo "make verify     that run beside the committed numbers, each with its tolerance"
	@echo "make test       environment, then the tests"
	@echo "make test-browser  every notebook in JupyterLab in headless Chromium, every widget moved (minutes)"
	@echo "make site       the notebooks as a static site to read offline, in runs/site/"
	@echo "make lab        open JupyterLab on the notebooks"
	@echo "make teaching   exercise notebooks for a class, student and instructor edition, into runs/teaching/"
	@echo "make env        only the environment, in $(VENV), from requirements.lock"
	@echo "make list       which notebooks would run, and why"
	@echo "make lint       style checks"
	@echo "make clean      delete runs/ (not the environment, not figures/)"

env: $(STAMP)

# The stamp holds the lock's content: the environment is made once, and brought up to date when the lock changes.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else 'MobiVid needs Python 3.11, 3.12 or 3.13, $(PYTHON) is %d.%d. Try: make env PYTHON=python3.12' % v[:2])"
	@$(PYTHON) -c "import platform, sys; sys.exit('MobiVid cannot be installed on this Mac: torch 2.13 has no build for Intel processors. Use a Linux machine or a Mac with Apple silicon.' if (platform.system(), platform.machine()) == ('Darwin', 'x86_64') else 0)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@

# For maintainers, with uv (pip install uv): the lock again, for all systems; pins that still fit stay.
lock:
	grep -v '^#' requirements.lock | sed 's/ *;.*//' | sort -t= -k1,1 -k3,3Vr | sort -su -t= -k1,1 > $(VENV)-lock.txt
	uv pip compile --universal --extra dev pyproject.toml $(ENVIRONMENTS) -o $(VENV)-lock.txt > /dev/null
	(grep '^#' requirements.lock; grep -vE '^($(UNLOCKED))' $(VENV)-lock.txt) > $(VENV)-lock.new
	mv $(VENV)-lock.new requirements.lock && rm $(VENV)-lock.txt

reproduce: $(STAMP)
	$(BIN)/python -m mobivid_core reproduce --profile laptop $(ARGS)

smoke: $(STAMP)
	$(BIN)/python -m mobivid_core reproduce --profile smoke $(ARGS)

verify: $(STAMP)
	$(BIN)/python -m mobivid_core verify $(ARGS)

list: $(STAMP)
	$(BIN)/python -m mobivid_core reproduce --profile laptop --list

test: $(STAMP)
	$(GLIBC) $(BIN)/python -m pytest -m "not slow and not browser" $(ARGS)

test-slow: $(STAMP)
	$(GLIBC) $(BIN)/python -m pytest -m slow $(ARGS)

test-browser: $(STAMP)
	$(BIN)/python -c "import playwright" 2>/dev/null || $(BIN)/python -m pip install "playwright>=1.50"
	$(BIN)/python -m pytest tests/browser $(ARGS)

# jupyter-book gets an environment of its own: its sphinx would move packages that the notebooks pin.
site: $(VENV)-site/.ready
	PYTHONPATH=. $(VENV)-site/bin/python -m mobivid_core site $(ARGS)

$(VENV)-site/.ready: pyproject.toml
	test -x $(VENV)-site/bin/python || $(PYTHON) -m venv $(VENV)-site
	$(VENV)-site/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['site'], sep='\n')" > $(VENV)-site/needs.txt
	$(VENV)-site/bin/python -m pip install -r $(VENV)-site/needs.txt
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: $(STAMP)
	$(GLIBC) $(BIN)/jupyter lab --notebook-dir . notebooks/00_start_here.ipynb

teaching: $(STAMP)
	$(BIN)/python -m mobivid_core teaching --edition student --out runs/teaching/student
	$(BIN)/python -m mobivid_core teaching --edition instructor --out runs/teaching/instructor

clean:
	rm -rf runs

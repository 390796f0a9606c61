# Needs make, a POSIX shell and Python; everything else is installed into .venv.
# All paths are relative, so the checkout may lie in a directory whose name has spaces.

DEMOS = binary multiclass
UV    = uv>=0.9,<1

VENV  = .venv
GROUP = dev
BIN   = $(VENV)/bin
MADE_FROM = pyproject.toml Makefile .python-version

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-latest lint fuzz format bench docs links clean
export VENV GROUP

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: ## install ntkbayes and its development tools into .venv (PYTHON=/path/to/python chooses the Python)
	@sh -euc "$$SETUP"

demo: setup ## compare laws on real data, and write reports into runs/
	@for model in $(DEMOS); do \
		echo "== models/$$model.py"; \
		$(BIN)/ntkbayes compare --model models/$$model.py || exit 1; \
	done

lint: setup ## check style, types and the order of the layers
	@echo "== ruff check"
	@$(BIN)/ruff check .
	@echo "== ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "== mypy"
	@$(BIN)/mypy
	@echo "== lint-imports"
	@$(BIN)/lint-imports

PYTEST = pytest --numprocesses auto --dist loadfile --max-worker-restart 0

test: lint ## run lint, then the tests but for the slow ones, with GPJax and the newest versions that go with it
	@echo "== pytest"
	@$(BIN)/$(PYTEST) -m "not slow" --cov --cov-report=
	@echo "coverage of lines: $$($(BIN)/coverage report --format=total) % ($(BIN)/coverage report shows the files)"

test-slow: setup ## run the slow tests, one in forty, which take half of the time
	@$(BIN)/$(PYTEST) -m slow

# Without GPJax, which holds back JAX, and so without its tests and those of the reference, which names its bridge.
test-latest: VENV = .venv-latest
test-latest: GROUP = latest
test-latest: setup ## run the tests but for the slow ones on the newest versions of everything, in .venv-latest
	@sh -euc "$$INSTALL" install --quiet --upgrade --editable . --group $(GROUP)
	@echo "== pytest"
	@$(BIN)/$(PYTEST) -m "not slow" --ignore=tests/bridges/test_gpjax.py --ignore=tests/test_docs.py

fuzz: setup ## ten thousand random problems: finite numbers, or a clear error
	@$(BIN)/pytest --numprocesses auto --hypothesis-profile nightly tests/test_fuzz.py

format: setup ## rewrite the code in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup ## measure the speed of the laws, then their calibration
	$(BIN)/python benchmarks/laws.py
	$(BIN)/python benchmarks/calibration.py

docs: setup ## run the notebooks, and build the site: docs/_build/html/index.html
	@sh -euc "$$INSTALL" install --quiet --group docs
	@$(BIN)/sphinx-build -q -W --keep-going -d docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

links: setup ## check that the site's links to other sites lead somewhere; this needs a network
	@sh -euc "$$INSTALL" install --quiet --group docs
	@$(BIN)/sphinx-build -q -b linkcheck -D nb_execution_mode=off -d docs/_build/links/doctrees docs docs/_build/links

clean: ## remove the environments, caches and builds; runs/ stays
	rm -rf .venv .venv-latest .coverage .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis build dist docs/_build docs/notebooks
	find . \( -name .git -o -name runs \) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# $VENV/.complete is written last and names the checkout, so a set-up that was interrupted, moved or copied is made
# anew. The environment's age is that of its start: a file edited during the installation counts as newer.
define SETUP
complete=$$VENV/.complete
here=$$(pwd -P)

# Prints the interpreter behind $$1, seen through shims and virtual environments; fails unless it runs and is supported.
supported() {
    "$$1" -c 'if True:
        import os, sys
        if not (3, 12) <= sys.version_info[:2] < (3, 14): sys.exit(1)
        print(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))' 2>/dev/null
}

find_python() {
    if [ -n "$${PYTHON:-}" ]; then
        supported "$$PYTHON" && return
        echo "make setup: PYTHON=$$PYTHON is not a working Python 3.12 or 3.13." >&2
        return 1
    fi
    for version in 3.12 3.13; do
        supported "python$$version" && return
        for candidate in "$${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version".*/bin/python; do
            supported "$$candidate" && return
        done
        supported "$$(uv python find --system "$$version" 2>/dev/null)" && return
    done
    supported python3 && return
    supported python && return
    cat >&2 <<END
make setup: found no working Python 3.12 or 3.13 (looked for python3.12, python3.13, python3 and python, and in pyenv
and uv). Install one, for example by one of
    uv python install 3.12
    pyenv install 3.12
    apt install python3.12 python3.12-venv
and run make setup again; or say where it is: make setup PYTHON=/path/to/python3.12
END
    return 1
}

# Python's own venv brings pip along, except where a distribution has split ensurepip off.
make_venv() {
    echo "make setup: making $$VENV with $$python"
    rm -rf "$$VENV"
    if "$$python" -c 'import ensurepip' 2>/dev/null; then
        "$$python" -m venv "$$VENV"
        "$$VENV/bin/python" -m pip install --quiet "$(UV)"
        return
    fi
    "$$python" -m venv --without-pip "$$VENV"
    if "$$python" -m pip --version >/dev/null 2>&1; then
        "$$python" -m pip --python "$$VENV/bin/python" install --quiet "$(UV)"
    elif uv --version >/dev/null 2>&1; then
        uv pip install --quiet --python "$$VENV/bin/python" "$(UV)"
    else
        echo "make setup: $$python has neither ensurepip nor pip, and uv is not installed either." >&2
        echo "Install one of them (on Debian and Ubuntu: apt install python3-venv) and try again." >&2
        return 1
    fi
}

base=$$(supported "$$VENV/bin/python") || base=none
if [ "$$base" != none ] && [ -n "$${PYTHON:-}" ]; then
    python=$$(find_python)
    [ "$$base" = "$$python" ] || base=none
fi
if [ "$$base" = none ] || [ "$$(cat $$complete 2>/dev/null)" != "$$here" ]; then
    python=$$(find_python)
    make_venv
elif [ -z "$$(find $(MADE_FROM) -newer $$complete)" ]; then
    exit 0
fi

rm -f $$complete
printf '%s\n' "$$here" >"$$VENV/.started"

sh -euc "$$INSTALL" install --editable . --group "$$GROUP"
mv "$$VENV/.started" $$complete
endef
export SETUP

define INSTALL
# uv does not read pip's configuration, which may be where this machine's mirror, proxy and certificates are set.
pip_config=$$("$$VENV/bin/python" -m pip config list 2>/dev/null) || pip_config=
told_pip() { printf '%s\n' "$$pip_config" | sed -n "s/^global\.$$1='\(.*\)'$$/\1/p"; }

if [ -z "$${UV_DEFAULT_INDEX:-}$${UV_INDEX_URL:-}" ]; then
    index=$${PIP_INDEX_URL:-$$(told_pip index-url)}
    [ -z "$$index" ] || export UV_DEFAULT_INDEX="$$index"
fi
if [ -z "$${HTTPS_PROXY:-}$${https_proxy:-}$${ALL_PROXY:-}$${all_proxy:-}" ]; then
    proxy=$${PIP_PROXY:-$$(told_pip proxy)}
    [ -z "$$proxy" ] || export ALL_PROXY="$$proxy"
fi
if [ -z "$${SSL_CERT_FILE:-}" ]; then
    certificates=$${PIP_CERT:-$$(told_pip cert)}
    [ -z "$$certificates" ] || export SSL_CERT_FILE="$$certificates"
fi

"$$VENV/bin/uv" pip install --python "$$VENV/bin/python" "$$@"
# As pip would: where Python is told to write no bytecode, every process would compile all that it imports.
"$$VENV/bin/python" -m compileall -qq -j 0 "$$VENV/lib" ntkbayes || true  # a broken example in a package is no matter
endef
export INSTALL

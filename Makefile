# Needs Python 3.10 or newer with venv (on Debian: python3-venv) and make.

PYTHON ?= python3
# Processes that run tests at the same time.
JOBS ?= 2
BIN := .venv/bin

.PHONY: demo test quick lint types imports wheel page peers check lock examples figures site picture web library clean

demo: .venv/.plain  ## classify the recordings under examples/ with the bundled model
	@$(BIN)/tiny-kws classify examples
	@echo
	@echo "Next:"
	@echo "  $(BIN)/tiny-kws classify YOUR.wav --top 3     your own recording: any format, rate and length"
	@echo "  $(BIN)/tiny-kws demo                          listen in the browser"
	@echo "  $(BIN)/tiny-kws info                          what the bundled model is"
	@echo "  make test                                    install the development tools and run every test"

test: .venv/.dev  ## run every test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

FAST = actions augment compare console detect features files figures import_rules locks models session words

quick: .venv/.dev lint types  ## lint, types, import rules and the fast tests, in under a minute
	$(BIN)/python -m pytest -q -m "not slow" $(FAST:%=tests/test_%.py)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev
	$(BIN)/mypy

imports: .venv/.dev  ## which room may import what
	$(BIN)/python -m pytest -q tests/test_import_rules.py

wheel: .venv/.dev  ## build the wheel and test what is in it, on the oldest and the newest Python there is
	$(BIN)/python scripts/check_wheel.py

check: test lint types imports wheel page

lock: .venv/.dev  ## bring requirements-dev.lock up to date with pyproject.toml
	$(BIN)/python scripts/lock.py

examples: .venv/.dev  ## speak the recordings under examples/ again (needs espeak-ng, flite and sox)
	$(BIN)/python scripts/make_examples.py examples

figures: .venv/.dev  ## write the figures of README, docs and model cards from the files they were measured into
	$(BIN)/python scripts/write_figures.py

site: .venv/.dev  ## build the documentation as a site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

picture: .venv/.dev  ## record docs/demo.webp, the moving picture of the page (needs Chromium)
	$(BIN)/python scripts/record_page.py docs/demo.webp

peers:  ## programs that the server is tested with, each in an environment of its own (needs Python 3.11)
	python3.11 -m venv .peers/satellite
	.peers/satellite/bin/pip install --quiet --disable-pip-version-check wyoming-satellite==1.0.0
	python3.11 -m venv .peers/home-assistant
	.peers/home-assistant/bin/pip install --quiet --disable-pip-version-check homeassistant==2024.3.3 wyoming==1.5.3 \
	  pytest-homeassistant-custom-component==0.13.109 hassil==1.6.1 home-assistant-intents==2024.3.29 \
	  webrtc-noise-gain==1.2.3 mutagen==1.47.0 ha-ffmpeg==3.2.0 zeroconf==0.131.0 aiohttp_cors==0.7.0 janus \
	  PyTurboJPEG==1.7.1 home-assistant-frontend==20240307.0

page: .venv/.dev  ## build the page anew and compare it with the committed one (needs Node 20 or newer)
	$(BIN)/python scripts/check_page.py

web:  ## check and build the page of `tiny-kws demo` from web/ (needs Node 20 or newer)
	cd web && npm ci --ignore-scripts && npm run build

library:  ## build the page's detector as an npm package in web/npm (needs Node 20 or newer)
	cd web && npm ci --ignore-scripts && npm run library

clean:
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -m venv .venv

# The lock constrains the plain install too, so that both give the same versions in either order.
.venv/.plain: pyproject.toml requirements-dev.lock | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements-dev.lock --editable .
	@touch $@

.venv/.dev: pyproject.toml requirements-dev.lock | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements-dev.lock --editable .
	@touch $@ .venv/.plain

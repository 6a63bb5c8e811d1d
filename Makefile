# Everything runs in .venv, which `make setup` creates and keeps current; a second run is quick.
PYTHON ?= python3
ARGS ?=
# Processes that share the tests; files stay whole.
TEST_PROCESSES ?= 2
SHARED := -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
WITH_ROS := tools/with_ros

# make demo BAG=path/to/bag IMAGE_TOPIC=/camera/image CONFIG=parameters.yaml VIEW=1
DEMO_ARGS := $(if $(BAG),--bag "$(BAG)") $(if $(IMAGE_TOPIC),--image-topic "$(IMAGE_TOPIC)") \
             $(if $(OUT),--out "$(OUT)") $(if $(CONFIG),--config "$(CONFIG)") $(if $(VIEW),--view)

.PHONY: help setup demo test check bench pytest docs clean distclean

help:
	@echo "make demo    map the bundled bag with the real node and write out/demo/"
	@echo "             (BAG=real for a bundled recording of a real camera, BAG=path IMAGE_TOPIC=/topic"
	@echo "             for your own, VIEW=1 for a page in the browser)"
	@echo "make test    every test, as continuous integration runs it"
	@echo "make check   lint, types and the fast tests"
	@echo "make bench   speed and memory of network, pipeline and node"
	@echo "make pytest ARGS=\"test/nodes -q\"   some tests"
	@echo "make docs    regenerate the generated pages in docs/"
	@echo "make clean   remove build products and results; make distclean also .venv"

setup:
	@$(PYTHON) tools/setup_env.py

demo: setup
	@$(WITH_ROS) python tools/demo.py $(DEMO_ARGS)

test: setup
	@$(WITH_ROS) python -m pytest $(SHARED)

check: setup
	@$(WITH_ROS) ruff check .
	@$(WITH_ROS) ruff format --check .
	@$(WITH_ROS) mypy
	@$(WITH_ROS) python -m pytest -q $(SHARED) -m "not slow and not ros and not gpu and not real_data"

pytest: setup
	@$(WITH_ROS) python -m pytest $(ARGS)

bench: setup
	@$(WITH_ROS) python -m scal3r_ros.cli bench $(ARGS)

docs: setup
	@$(WITH_ROS) python tools/write_docs.py

clean:
	rm -rf build install log out .pytest_cache .ruff_cache .mypy_cache

distclean: clean
	rm -rf .venv

# The commands a newcomer needs; each installs and builds what is missing first and is quick when nothing changed.
#   make demo      build, run the demo workflow, say where the picture is
#   make test      build and run all tests
#   make bench     measure and write build/bench/*.json
#   make format    format the sources     make lint   clang-tidy + formatter check + include order
#   make sanitize  tests under AddressSanitizer and UndefinedBehaviorSanitizer, then under ThreadSanitizer
BUILD ?= build/release
NINJA = ninja -C $(BUILD)
export CCACHE_DIR ?= $(CURDIR)/.cache/ccache
# Paths count from the checkout, so that a second clone can use the first one's cache.
export CCACHE_BASEDIR ?= $(CURDIR)
export CCACHE_NOHASHDIR ?= 1

.PHONY: all setup configure build demo test bench format lint sanitize fuzz clean
all: build

setup:
	@tools/setup.sh

configure: setup
	@[ -f $(BUILD)/build.ninja ] || cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null

build: configure
	@$(NINJA) distorch

demo: build
	@tools/demo.sh $(BUILD)/bin/distorch

test: setup
	@tools/setup_browser.sh
	@tools/setup_clients.sh
	@$(MAKE) --no-print-directory configure
	@$(NINJA)
	@OMP_WAIT_POLICY=passive ctest --test-dir $(BUILD) -j2 --output-on-failure

bench: configure
	@$(NINJA)
	@tools/bench.sh $(BUILD)

format:
	@tools/format.sh --fix

lint:
	@tools/format.sh --check
	@tools/lint.sh

sanitize: setup
	@tools/sanitize.sh

fuzz: setup
	@tools/fuzz.sh

clean:
	rm -rf build

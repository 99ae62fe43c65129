# Thin over the CMake presets (CMakePresets.json): the build rules are in CMakeLists.txt.
PRESET_DIR = build
CMAKE_BUILD = cmake --build
QUESTION ?= What is 37 + 48 - 19?
PREFIX ?= /usr/local

.PHONY: all run check check-all counts install format fuzz clean help

all: $(PRESET_DIR)/build.ninja ## build the release program at build/dure (the packages are there)
	@$(CMAKE_BUILD) $(PRESET_DIR) --target dure

$(PRESET_DIR)/build.ninja:
	@cmake --preset release >/dev/null

run: ## install what is missing, build, and answer one question with the built-in model
	@tools/install-deps.sh build
	@$(MAKE) --no-print-directory all
	@$(PRESET_DIR)/dure run -p "$(QUESTION)"

check: ## install what is missing, build, and run the tests
	@tools/install-deps.sh build test
	@tools/check.sh

check-all: ## check, and sanitizers, fuzz smoke runs, Python references, slow suites
	@tools/install-deps.sh build test extra
	@tools/check.sh --all

counts: ## count the instructions of the hot paths anew (tests/instructions/counts.json)
	@cmake --preset check >/dev/null
	@$(CMAKE_BUILD) $(PRESET_DIR) --target dure
	@DURE=$(CURDIR)/$(PRESET_DIR)/dure DURE_SOURCE_DIR=$(CURDIR) DURE_BUILD_DIR=$(CURDIR)/$(PRESET_DIR) \
		PYTHONPATH=tests python3 tests/instructions/test_counts.py --update

install: all ## install under PREFIX (default /usr/local; DESTDIR is honoured)
	@$(CMAKE_BUILD) $(PRESET_DIR) --target dure libdure libdure_shared dure_share
	@cmake --install $(PRESET_DIR) --prefix $(PREFIX)

format: ## bring the C files into the form that clang-format 14 decides
	@git ls-files -z '*.c' '*.h' | xargs -0 clang-format -i

fuzz: ## run each fuzz target for FUZZ_SECONDS (default 60) with clang
	@tools/install-deps.sh build extra
	@tools/fuzz.sh

clean: ## remove the build folders
	@rm -rf build build-*

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

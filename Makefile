# vlmd - `make help` lists the targets; V=1 shows the commands. Sources are found by folder: a new .c file needs no line here.
SHELL := /bin/bash
CC ?= cc
BUILD ?= build
SAN ?=
ASAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined
Q := $(if $(V),,@)
CSTD := -std=c11 -D_GNU_SOURCE
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wno-format-truncation -Werror
# No contraction, no fast-math: a row's bits are a promise (docs/architecture.md, "Numbers").
OPT := -O2 -g -fno-math-errno -ffp-contract=off -fno-omit-frame-pointer
PKGS := libmicrohttpd jansson libjpeg libpng libwebp openblas libpcre2-8 libutf8proc nettle
CFLAGS += $(CSTD) $(WARN) $(OPT) $(SAN) -I. -MMD -MP -pthread
LDLIBS := $(SAN) -pthread $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lgif -lm

# CUDA=1: with the CUDA backend, by nvcc, as where there is one; 0: without; emu: for the host, against tests/cuda_emu.
NVCC := $(or $(NVCC),$(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc)))
CUDA ?= $(if $(NVCC),1,0)
# That of this machine's GPUs; the last is also there as PTX, for later ones. `make release` has all.
CUDA_ARCHS := $(or $(CUDA_ARCHS),$(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -x '[0-9.]*' | tr -d . | sort -u),90)
CUDA_HOME := $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
# Neither the kernels nor the runtime need C++'s library.
NVFLAGS = -std=c++17 -O3 -lineinfo -I. -MMD -MP -Xcompiler -Wall,-Wextra,-fno-exceptions,-fno-threadsafe-statics -Werror all-warnings \
    $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) -gencode arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS))
EMUFLAGS = -std=c++17 -Wall -Wextra -Wno-unknown-pragmas -Werror $(OPT) $(SAN) -I. -Itests/cuda_emu/include -MMD -MP
ifneq ($(CUDA),0)
CFLAGS += -DVLMD_CUDA
endif
ifeq ($(CUDA),1)
CFLAGS += -isystem $(CUDA_HOME)/include
LDLIBS += -L$(CUDA_HOME)/lib64 -lcudart_static -ldl -lrt
endif
ifeq ($(CUDA),emu)
CFLAGS += -Itests/cuda_emu/include
# cuBLASLt is looked for where the loader looks: an RPATH goes before everything else. It calls the emulator in the program.
EMULIB := $(BUILD)/tests/cuda_emu/libcublasLt.so.13
LDLIBS += -lstdc++ -rdynamic -Wl,--disable-new-dtags,-rpath,$(abspath $(dir $(EMULIB)))
CUOBJ := $(patsubst %,$(BUILD)/tests/cuda_emu/%.o,emu runtime)
endif
C_FLAGS := $(CC) $(CFLAGS)
CU_FLAGS := $(NVCC) $(NVFLAGS) $(EMUFLAGS)

SRC := $(shell find kernels engine server -name '*.c' $(if $(filter 0,$(CUDA)),-not -path 'kernels/cuda/*') | sort)
OBJ := $(SRC:%.c=$(BUILD)/%.o)
CUOBJ += $(if $(filter 0,$(CUDA)),,$(patsubst %,$(BUILD)/%.o,$(wildcard kernels/cuda/*.cu)))
OBJ += $(CUOBJ)
LIBOBJ := $(filter-out $(BUILD)/server/main.o,$(OBJ))
# A unit test is tests/**/test_*.c: one program each, linked with everything but main.
UNIT := $(patsubst tests/%.c,$(BUILD)/tests/%,$(shell find tests -name 'test_*.c' $(if $(filter-out emu,$(CUDA)),-not -path 'tests/cuda_emu/*') | sort))
BENCH := $(patsubst tests/%.c,$(BUILD)/tests/%,$(shell find tests/bench -name 'bench_*.c' | sort))
TESTOBJ := $(patsubst tests/%.c,$(BUILD)/tests/%.o,$(shell find tests/ref -name '*.c' | sort))

all: $(BUILD)/vlmd
$(BUILD)/vlmd: $(BUILD)/server/main.o $(BUILD)/libvlmd.a
	$(Q)$(CC) -o $@ $^ $(LDLIBS)
$(BUILD)/libvlmd.a: $(LIBOBJ) $(BUILD)/flags.C | $(EMULIB)
	@rm -f $@; ar rcs $@ $(filter %.o,$^)
$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TESTOBJ) $(BUILD)/libvlmd.a
	$(Q)$(CC) -o $@ $^ -lcmocka $(LDLIBS)
$(BUILD)/tests/cuda_emu/test_emu: $(BUILD)/tests/cuda_emu/emu_kernels.cu.o
$(BUILD)/tests/cuda_emu/test_blas: LDLIBS += $(EMULIB)
$(BUILD)/tests/cuda_emu/test_blas: | $(BUILD)/tests/cuda_emu/short_cublaslt.so
$(EMULIB): $(BUILD)/tests/cuda_emu/fake_cublaslt.so
	@ln -sf $(<F) $@
$(BUILD)/tests/cuda_emu/%_cublaslt.so: tests/cuda_emu/%_cublaslt.cpp $(BUILD)/flags.CU
	@mkdir -p $(@D)
	@[ -n '$(V)' ] || echo "  CXX $<"
	$(Q)$(CXX) $(EMUFLAGS) -fPIC -shared -Wl,-soname,$(@F) $< -o $@
# SIMD files carry their instruction set in their name; a run-time check picks one (kernels/cpu/cpu.c).
$(BUILD)/%_avx512.o: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
$(BUILD)/%_avx2.o: ISA := -mavx2 -mfma -mf16c
$(BUILD)/kernels/cpu/%.o: OPT += -O3
$(BUILD)/%.o: %.c $(BUILD)/flags.C
	@mkdir -p $(@D)
	@[ -n '$(V)' ] || echo "  CC $<"
	$(Q)$(CC) $(CFLAGS) $(ISA) -c $< -o $@

# x.cu becomes x.cu.o: an x.c may stand beside it.
$(BUILD)/%.cu.o: %.cu $(BUILD)/flags.CU
	@mkdir -p $(@D)
	@[ -n '$(V)' ] || echo "  CU $<"
	$(Q)$(if $(filter emu,$(CUDA)),$(CXX) $(EMUFLAGS) -x c++,$(NVCC) $(NVFLAGS)) -c $< -o $@
$(BUILD)/%.o: %.cpp $(BUILD)/flags.CU
	@mkdir -p $(@D)
	@[ -n '$(V)' ] || echo "  CXX $<"
	$(Q)$(CXX) $(EMUFLAGS) -c $< -o $@
# What was built with other flags is built again.
$(BUILD)/flags.%: FORCE
	@mkdir -p $(@D); cmp -s $@ - <<<'$($*_FLAGS)' || echo '$($*_FLAGS)' >$@

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16
deps: ## install the Debian packages that are missing
	@tests/deps.sh
release: deps ## build/release/vlmd for every GPU from A100 on
	@$(MAKE) --no-print-directory -j$$(nproc) all BUILD=build/release CUDA=1 CUDA_ARCHS="80 86 89 90"
run: deps ## build and serve the bundled model on 127.0.0.1:8000
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@exec $(BUILD)/vlmd serve
test: deps ## build and run every test that fits in a few minutes
	@$(MAKE) --no-print-directory -j$$(nproc) check
	@EMU_QUICK=1 tests/cuda_emu/run.sh
check: all unit-bins
	@$(if $(filter 0,$(CUDA)),echo "SKIPPED: what nvcc compiles (no nvcc; the emulator's suites run)")
	@tests/run.sh $(UNIT)
unit-bins: $(UNIT) $(BUILD)/tests/server/vlmd_fake $(BUILD)/tests/fault/vlmd_fault
test-all: test ## also the long suites
	@VLMD_LONG=1 tests/run.sh $(UNIT)
	@$(MAKE) --no-print-directory test-cuda-emu
	@$(MAKE) --no-print-directory test-fault
test-fault: deps ## every allocation, read, mapping, thread and send fails in turn, under AddressSanitizer
	@$(MAKE) --no-print-directory -j$$(nproc) fault-bin BUILD=build/asan SAN="$(ASAN)"
	@VLMD_FAULT_BIN=$(CURDIR)/build/asan/tests/fault/vlmd_fault python3 tests/fault/run.py
fault-bin: $(BUILD)/tests/fault/vlmd_fault
# Its own malloc, send, ... stand before those of every library: they have to be visible.
$(BUILD)/tests/fault/vlmd_fault: LDLIBS += -rdynamic
# They run before a sanitizer is ready.
$(BUILD)/tests/fault/vlmd_fault.o: override SAN :=
test-asan: deps ## the whole suite under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory -j$$(nproc) check BUILD=build/asan SAN="$(ASAN)"
test-tsan: deps ## server and scheduler tests under ThreadSanitizer
	@VLMD_SUITE=tsan $(MAKE) --no-print-directory -j$$(nproc) check BUILD=build/tsan SAN="-fsanitize=thread"
test-cuda-emu: deps ## the CUDA backend on this machine's CPU, emulated, under AddressSanitizer, in three orders
	@tests/cuda_emu/run.sh
# What a GPU is to show: from here, or unpacked elsewhere.
GPUBIN := $(BUILD)/vlmd $(BUILD)/tests/tools/random_checkpoint $(BUILD)/tests/tools/trace_ops $(filter $(addprefix $(BUILD)/tests/,kernels/test_ops% kernels/test_sample kernels/test_device% $(addprefix engine/model/test_,model dual lot) engine/sched/test_device),$(UNIT))
gpu-bins: $(GPUBIN)
cuda-report: ## docs/gpu-kernels.md: registers, spills, occupancy of each kernel (CHECK=1: only whether a hot one spills)
	@NVCC="$(NVCC)" python3 tests/cuda_report.py $(if $(CHECK),--check)
gpu-check: deps ## every op, goldens, load on this machine's GPU (GPU_ARGS="--smoke --device cpu": the scripts alone)
	@$(MAKE) --no-print-directory -j$$(nproc) gpu-bins
	@BUILD=$(BUILD) tests/gpu/check.sh $(GPU_ARGS)
gpu-bench: deps ## its figures beside the GPU's bounds, transformers and vLLM: build/gpu-bench.md, .json
	@$(MAKE) --no-print-directory -j$$(nproc) gpu-bins
	@BUILD=$(BUILD) python3 tests/gpu/bench.py $(GPU_ARGS)
bundle: deps ## build/vlmd-bundle.tar.gz: gpu-check and gpu-bench for a machine without compiler and packages
	@$(MAKE) --no-print-directory -j$$(nproc) bundle-pack BUILD=build/bundle-bin CUDA=1 CUDA_ARCHS="80 90"
bundle-pack: gpu-bins
	@tests/gpu/bundle.sh $(BUILD) $(GPUBIN)
lint: ## formatting, static checks, the direction of includes
	@tests/lint.sh
bench: ## figures of speed, as ratios measured in the same run
	@$(MAKE) --no-print-directory -j$$(nproc) all bench-bins && tests/bench.sh $(BENCH)
bench-bins: $(BENCH)
soak: deps ## SOAK_SECONDS=600 of mixed load and abuse: nothing hung, lost, leaked or wrong
	@$(MAKE) --no-print-directory -j$$(nproc) all && VLMD_BIN=$(CURDIR)/$(BUILD)/vlmd python3 tests/load/soak.py
bench-load: deps ## what eight clients get, as ratios to one alone
	@$(MAKE) --no-print-directory -j$$(nproc) all && VLMD_BIN=$(CURDIR)/$(BUILD)/vlmd python3 tests/load/bench_load.py
bench-itl: deps ## what text streams notice of pictures without end, as ratios to idle
	@$(MAKE) --no-print-directory -j$$(nproc) all && VLMD_BIN=$(CURDIR)/$(BUILD)/vlmd python3 tests/load/bench_itl.py
bench-http: deps ## requests a second without a model, and how soon a full server says no
	@tests/deps.sh bench
	@$(MAKE) --no-print-directory -j$$(nproc) all $(BUILD)/tests/server/vlmd_fake && VLMD_BIN=$(CURDIR)/$(BUILD)/vlmd python3 tests/load/bench_http.py
bench-fusion: deps ## early fusion, cross-attention, late fusion and the projectors at one size: rewrites docs/fusion.md's tables
	@$(MAKE) --no-print-directory -j$$(nproc) all $(BUILD)/tests/tools/random_checkpoint && BUILD=$(BUILD) python3 tests/bench/fusion.py --write $(BENCH_ARGS)
bench-costs: deps ## what a picture costs in the published shapes: rewrites docs/families.md's table
	@$(MAKE) --no-print-directory -j$$(nproc) all $(BUILD)/tests/tools/random_checkpoint $(BUILD)/tests/bench/bench_encode && BUILD=$(BUILD) python3 tests/bench/costs.py --write $(BENCH_ARGS)
SWEEP_SEEDS ?= 3
SWEEP_PYTHON ?= python3
sweep: deps ## drawn checkpoints against the reference library (SWEEP_SEEDS=3 a family, SWEEP_FAMILIES, SWEEP_PYTHON that has it)
	@$(SWEEP_PYTHON) -c 'import torch, torchvision, transformers; assert transformers.__version__ == "5.23.0"' || \
	  { echo 'make sweep: SWEEP_PYTHON ($(SWEEP_PYTHON)) needs torch, torchvision and transformers 5.23.0'; exit 1; }
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@VLMD_BIN=$(CURDIR)/$(BUILD)/vlmd $(SWEEP_PYTHON) tests/golden/sweep/sweep.py -n $(SWEEP_SEEDS) $(SWEEP_FAMILIES)
fuzz: ## libFuzzer over every parser of foreign bytes (FUZZ_SECONDS=60 each)
	@tests/fuzz/run.sh
format: ## rewrite the sources with clang-format
	@git ls-files '*.c' '*.h' | xargs clang-format -i
clean: ## remove what make wrote
	rm -rf build
FORCE:
.PHONY: FORCE all release gpu-bins cuda-report gpu-check gpu-bench bundle bundle-pack help deps run test check unit-bins test-all test-asan test-tsan test-cuda-emu test-fault fault-bin lint bench bench-bins soak bench-load bench-itl bench-http bench-fusion bench-costs sweep fuzz format clean
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

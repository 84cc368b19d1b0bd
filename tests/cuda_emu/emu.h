/* emu.h - what the emulator's two halves share: emu.cpp runs a grid, runtime.cpp decides when. */
#ifndef VLMD_CUDA_EMU_EMU_H
#define VLMD_CUDA_EMU_EMU_H

#include <string>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define ASAN 1
#else
#define ASAN 0
#endif

enum { EMU_MAX_THREADS = 1024 }; /* of a block */

/* All of its blocks, one after the other. */
void emu_run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()> &body);
std::string emu_setting(const char *name, const char *otherwise); /* of the environment */

#endif

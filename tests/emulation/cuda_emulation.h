#pragma once
/// Compiles CUDA sources with a C++ compiler and runs them on the CPU. Force-included (-include) before everything else
/// in every emulated translation unit: the toolkit's headers leave __shared__ alone once it is defined, and without
/// nvcc they make __global__ and __device__ empty and declare the host functions, which the shims beside this file
/// define. tests/emulation/README.md says what it sees and what not.

#ifdef __CUDACC__
#error "cuda_emulation.h is for a C++ compiler; nvcc needs no emulation"
#endif

/// Blocks run one after another, so that a variable of the program can stand for one of each block. Arrays are declared
/// with ESPALIER_SHARED_ARRAY, which is exact in size and poisoned.
#define __shared__ static
#define __launch_bounds__(...)

#include "tests/emulation/execution.h"
#include "tests/emulation/intrinsics.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

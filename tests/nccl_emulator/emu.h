/* emu.h - what the files of the emulator share. */
#ifndef P4_EMU_H
#define P4_EMU_H

#include <cuda_runtime.h>
#include <nccl.h>
#include <stddef.h>

/* The stream, not the device's own, calls work(argument) on a copy of the argument when it gets there, after
 * a random pause. */
void emu_queue(cudaStream_t stream, void (*work)(void *argument), const void *argument, size_t bytes);
int emu_ranks(ncclComm_t comm);

#endif

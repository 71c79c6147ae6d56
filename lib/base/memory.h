// The process's heap.
#pragma once

namespace hax {

// From here on memory that is freed stays with the process. By default glibc gives blocks of megabytes back
// to the system at once, and a training step on a CPU, which makes the same tensors again and again, spends a
// seventh of its time in page faults. Does nothing where the C library is not glibc.
void keep_freed_memory();

}  // namespace hax

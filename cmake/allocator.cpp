// SPDX-License-Identifier: Apache-2.0
// jemalloc reads its options from this symbol (its manual, section TUNING). Freed pages are kept:
// an update's activations come and go by the gigabyte, and the kernel takes longer to clear fresh
// pages than the arithmetic to fill them. What is freed side by side becomes one extent, and by
// default (lg_extent_max_active_fit: 6) one above 64 times a request is not split for it: caches
// that were freed together would never be used again. Pages are huge where the kernel has any
// (thp): a decoding step reads all weights, and a page of 4 KB takes a walk of the page table each.
extern "C" {
extern const char* malloc_conf;
const char* malloc_conf =
    "dirty_decay_ms:-1,muzzy_decay_ms:-1,lg_extent_max_active_fit:32,thp:always";
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Puts the numbers on stdin, by turns, into two histograms, merges them, and prints the quantiles given as arguments
 * and the largest value. For test_load.py.
 */
#include <stdio.h>
#include <stdlib.h>

#include "load.h"

static struct vscsi_load_result a, b;

int main(int argc, char **argv)
{
    unsigned long long ns;
    for (int n = 0; scanf("%llu", &ns) == 1; n++) {
        vscsi_hist_add(n % 2 ? &b : &a, ns);
        (n % 2 ? &b : &a)->ios++;
    }
    vscsi_load_merge(&a, &b);
    for (int i = 1; i < argc; i++)
        printf("%llu\n", (unsigned long long)vscsi_hist_quantile(&a, atof(argv[i])));
    printf("%llu %llu\n", (unsigned long long)a.max_ns, (unsigned long long)a.ios);
    return 0;
}

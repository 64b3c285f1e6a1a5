/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random steps on two rings at once: one through ring.h, one through the macros of Xen's own <xen/io/ring.h>. After
 * every step the shared headers are the same byte for byte, and every decision (kick? work left? full?) is the same.
 * Usage: ring_xen STEPS. Exit 77 where Xen's headers are not installed.
 */
#include "stress.h"

#if __has_include(<xen/io/ring.h>)
#define __XEN_INTERFACE_VERSION__ 0x00040600
#define xen_mb() vscsi_full_fence()
#define xen_rmb() vscsi_full_fence()
#define xen_wmb() vscsi_full_fence()
#include <xen/io/ring.h>

struct entry {
    uint8_t bytes[VSCSI_SRP_SLOT];
};
DEFINE_RING_TYPES(witness, struct entry, struct entry);

static uint8_t ours[VSCSI_PAGE_SIZE] __attribute__((aligned(4096)));
static uint8_t theirs[VSCSI_PAGE_SIZE] __attribute__((aligned(4096)));

#define OFFSET(what, ring, index) ((uint8_t *)RING_GET_##what(&(ring), (ring).index) - theirs)

static uint64_t run(uint32_t start, uint64_t steps, uint64_t random)
{
    struct vscsi_sring *sring = (struct vscsi_sring *)ours;
    struct witness_sring *xen = (struct witness_sring *)theirs;
    uint32_t n = vscsi_ring_entries(1, VSCSI_SRP_SLOT);
    if (n != __CONST_RING_SIZE(witness, VSCSI_PAGE_SIZE))
        fail("%u slots", n);
    struct vscsi_front_ring front;
    struct vscsi_back_ring back;
    witness_front_ring_t xen_front;
    witness_back_ring_t xen_back;
    vscsi_ring_init(sring);
    SHARED_RING_INIT(xen);
    if (memcmp(ours, theirs, VSCSI_RING_HEADER))
        fail("the header of a new ring");
    sring->req_prod = sring->rsp_prod = xen->req_prod = xen->rsp_prod = start;
    sring->req_event = sring->rsp_event = xen->req_event = xen->rsp_event = start + 1;
    vscsi_front_attach(&front, sring, n, VSCSI_SRP_SLOT, start);
    vscsi_back_attach(&back, sring, n, VSCSI_SRP_SLOT, start);
    FRONT_RING_ATTACH(&xen_front, xen, start, VSCSI_PAGE_SIZE);
    BACK_RING_ATTACH(&xen_back, xen, start, VSCSI_PAGE_SIZE);

    uint64_t kicks = 0;
    for (uint64_t step = 0; step < steps; step++) {
        uint32_t what = chance(&random, 8), batch = chance(&random, n) + 1;
        int kick, xen_kick, work, xen_work;
        switch (what) {
        case 0: /* requests, published or not */
        case 1:
            for (; batch && !RING_FULL(&xen_front); batch--) {
                if ((uint8_t *)vscsi_front_next_request(&front) - ours != OFFSET(REQUEST, xen_front, req_prod_pvt))
                    fail("another slot for a request");
                xen_front.req_prod_pvt++;
            }
            if (RING_FULL(&xen_front) != (vscsi_front_free(&front) == 0))
                fail("full");
            if (what)
                break;
            RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&xen_front, xen_kick);
            kick = vscsi_front_push(&front);
            if (kick != xen_kick)
                fail("kick for requests: %d, not %d", kick, xen_kick);
            kicks += (uint32_t)kick;
            break;
        case 2: /* take requests */
            work = vscsi_back_unconsumed(&back);
            xen_work = (int)RING_HAS_UNCONSUMED_REQUESTS(&xen_back);
            if (work != xen_work)
                fail("%d requests, not %d", work, xen_work);
            for (; batch && work; batch--, work--) {
                if ((const uint8_t *)vscsi_back_request(&back) - ours != OFFSET(REQUEST, xen_back, req_cons))
                    fail("another slot of a request");
                vscsi_back_consume(&back);
                xen_back.req_cons++;
            }
            break;
        case 3: /* answer */
        case 4:
            for (; batch && xen_back.rsp_prod_pvt != xen_back.req_cons; batch--) {
                if ((uint8_t *)vscsi_back_next_response(&back) - ours != OFFSET(RESPONSE, xen_back, rsp_prod_pvt))
                    fail("another slot for a response");
                xen_back.rsp_prod_pvt++;
            }
            if (what == 3)
                break;
            RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&xen_back, xen_kick);
            kick = vscsi_back_push(&back);
            if (kick != xen_kick)
                fail("kick for responses: %d, not %d", kick, xen_kick);
            kicks += (uint32_t)kick;
            break;
        case 5: /* reap */
            work = vscsi_front_unconsumed(&front);
            xen_work = (int)RING_HAS_UNCONSUMED_RESPONSES(&xen_front);
            if (work != xen_work)
                fail("%d responses, not %d", work, xen_work);
            for (; batch && work; batch--, work--) {
                front.rsp_cons++;
                xen_front.rsp_cons++;
            }
            break;
        case 6: /* about to sleep */
            RING_FINAL_CHECK_FOR_REQUESTS(&xen_back, xen_work);
            work = vscsi_back_final_check(&back);
            if (work != xen_work)
                fail("final check for requests: %d, not %d", work, xen_work);
            break;
        case 7:
            RING_FINAL_CHECK_FOR_RESPONSES(&xen_front, xen_work);
            work = vscsi_front_final_check(&front, 1);
            if (work != xen_work)
                fail("final check for responses: %d, not %d", work, xen_work);
            break;
        }
        if (memcmp(ours, theirs, VSCSI_RING_HEADER))
            fail("step %llu (kind %u): the headers differ", (unsigned long long)step, what);
    }
    return kicks;
}

int main(int argc, char **argv)
{
    uint64_t steps = argc == 2 ? strtoull(argv[1], NULL, 0) : 1000000;
    uint64_t kicks = run(0, steps / 3, 1) + run(0xffffff80, steps / 3, 2) + run(0x7ffffff0, steps / 3, 3);
    printf("kicks=%llu\n", (unsigned long long)kicks);
    return kicks == 0;
}
#else
int main(void)
{
    return 77;
}
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests by position on the device: a treap, so that a peer with thousands of requests costs a logarithm. Its
 * priorities are random numbers that no peer knows. Knows order; knows no device.
 */
#include <stddef.h>

#include "sched_queue.h"

static bool before(const struct sq_item *a, const struct sq_item *b)
{
    return a->at != b->at ? a->at < b->at : a->number < b->number;
}

void sq_tree_insert(struct sq_item **root, struct sq_item *item)
{
    struct sq_item **link = root;
    while (*link && (*link)->priority >= item->priority)
        link = before(item, *link) ? &(*link)->left : &(*link)->right;
    /* What stood here is cut in two by the newcomer. */
    struct sq_item *rest = *link, **left = &item->left, **right = &item->right;
    *link = item;
    while (rest) {
        if (before(rest, item)) {
            *left = rest;
            left = &rest->right;
            rest = rest->right;
        } else {
            *right = rest;
            right = &rest->left;
            rest = rest->left;
        }
    }
    *left = *right = NULL;
}

void sq_tree_remove(struct sq_item **root, struct sq_item *item)
{
    struct sq_item **link = root;
    while (*link != item)
        link = before(item, *link) ? &(*link)->left : &(*link)->right;
    struct sq_item *left = item->left, *right = item->right;
    while (left && right) {
        if (left->priority >= right->priority) {
            *link = left;
            link = &left->right;
            left = left->right;
        } else {
            *link = right;
            link = &right->left;
            right = right->left;
        }
    }
    *link = left ? left : right;
}

struct sq_item *sq_tree_from(struct sq_item *root, uint64_t at)
{
    struct sq_item *found = NULL;
    while (root) {
        if (root->at >= at) {
            found = root;
            root = root->left;
        } else {
            root = root->right;
        }
    }
    return found;
}

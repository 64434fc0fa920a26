/*
 * Containers that grow and shrink: a binary tree and a hash table with nodes and values on the heap, as a
 * program's tables of names, sessions or orders are. Keys come and go at random, so nodes that lie next to
 * each other die at different times; while a container grows the allocator carves fresh memory, while it
 * shrinks it collects scattered blocks, and looking a key up costs what the blocks' places in memory cost.
 *
 *      operations of a round:   first half: 3 of 4 insert   ─   second half: 3 of 4 remove
 *
 * Each thread has a container of its own, and keeps what is left from round to round. Both containers are
 * chains of `struct node` hung up in their own way.
 *
 *      tree:   left and right, ordered by the mixed key, so it stays shallow without being balanced
 *      hash:   left only, the next of the bucket; the buckets double when nodes outnumber them, halve when
 *              seven in eight are too many
 */
#include "../support.h"
#include "../workload.h"

enum {
    SMALLEST_VALUE_BYTES = 16,
    LARGEST_VALUE_BYTES = 256,
    FEWEST_BUCKETS = 16,
    SPARSE = 8, /* buckets for a node, and they are halved */
    CHOICES = 4,
    OPERATIONS_PER_KEY = 2,
};

struct node {
    struct node *left;
    struct node *right; /* of a tree */
    uint64_t key;       /* mixed */
    struct piece value;
};

struct container {
    struct node **roots; /* one of a tree, or the buckets */
    size_t buckets;      /* a power of two; 1 for a tree */
    size_t nodes;
};

/* Where the node of a key hangs, or would hang; and how to take one off. */
struct container_kind {
    struct node **(*find)(struct container *container, uint64_t key);
    struct node *(*unlink)(struct node **link);
    size_t fewest_buckets;
    bool resized;
};

struct containers {
    const struct container_kind *kind;
    int threads;
    uint32_t keys; /* that each thread draws from */
    struct size_table sizes;
    struct container *all; /* one for each thread */
};

static struct node **tree_find(struct container *tree, uint64_t key)
{
    struct node **link = tree->roots;

    while (*link != NULL && (*link)->key != key)
        link = key < (*link)->key ? &(*link)->left : &(*link)->right;
    return link;
}

/* A node with two children is replaced by the smallest of those that are greater. */
static struct node *tree_unlink(struct node **link)
{
    struct node *node = *link;
    struct node **least = &node->right;
    struct node *heir;

    if (node->left == NULL || node->right == NULL) {
        *link = node->left != NULL ? node->left : node->right;
        return node;
    }
    while ((*least)->left != NULL)
        least = &(*least)->left;
    heir = *least;
    *least = heir->right;
    heir->left = node->left;
    heir->right = node->right;
    *link = heir;
    return node;
}

static struct node **hash_find(struct container *table, uint64_t key)
{
    struct node **link = &table->roots[key & (table->buckets - 1)];

    while (*link != NULL && (*link)->key != key)
        link = &(*link)->left;
    return link;
}

static struct node *hash_unlink(struct node **link)
{
    struct node *node = *link;

    *link = node->left;
    return node;
}

static void hash_resize(struct container *table, size_t buckets)
{
    struct node **old = table->roots;
    size_t old_buckets = table->buckets;

    table->roots = must_calloc(buckets, sizeof(struct node *));
    table->buckets = buckets;
    for (size_t bucket = 0; bucket < old_buckets; bucket++)
        while (old[bucket] != NULL) {
            struct node *node = hash_unlink(&old[bucket]);
            struct node **first = &table->roots[node->key & (buckets - 1)];

            node->left = *first;
            *first = node;
        }
    free(old);
}

static void hash_fit(struct container *table)
{
    if (table->nodes > table->buckets)
        hash_resize(table, 2 * table->buckets);
    else if (table->buckets > FEWEST_BUCKETS && SPARSE * table->nodes < table->buckets)
        hash_resize(table, table->buckets / 2);
}

static void node_hang(struct node **link, uint64_t key, struct piece value)
{
    struct node *node = must_malloc(sizeof(*node));

    *node = (struct node){.key = key, .value = value};
    *link = node;
}

static void node_free(struct node *node)
{
    piece_free(&node->value);
    free(node);
}

/* A key that is wanted and there gets a new value. */
static void container_change(const struct containers *containers, struct container *container, bool wanted,
                             struct rng *rng)
{
    uint64_t key = mix64(rng_below(rng, containers->keys) + 1);
    struct node **link = containers->kind->find(container, key);

    if (wanted && *link != NULL) {
        piece_free(&(*link)->value);
        (*link)->value = piece_draw(&containers->sizes, rng);
    } else if (wanted) {
        node_hang(link, key, piece_draw(&containers->sizes, rng));
        container->nodes++;
    } else if (*link != NULL) {
        node_free(containers->kind->unlink(link));
        container->nodes--;
    }
    if (containers->kind->resized)
        hash_fit(container);
}

static void round_of_changes(void *state, struct turn *turn)
{
    struct containers *containers = state;
    struct container *container = &containers->all[turn->thread];

    for (uint64_t count = 0; count < turn->operations; count++) {
        bool grows = count < turn->operations / 2;
        bool usual = rng_below(&turn->rng, CHOICES) != 0;

        container_change(containers, container, grows == usual, &turn->rng);
    }
}

static void *prepare(const struct workload *workload, int threads)
{
    struct containers *containers = must_malloc(sizeof(*containers));

    containers->kind = workload->parameters;
    containers->threads = threads;
    containers->keys = (uint32_t)(workload->operations / OPERATIONS_PER_KEY / (uint64_t)threads);
    size_table_fill(&containers->sizes, SMALLEST_VALUE_BYTES, LARGEST_VALUE_BYTES);
    containers->all = must_calloc((size_t)threads, sizeof(*containers->all));
    for (int thread = 0; thread < threads; thread++) {
        struct container *container = &containers->all[thread];

        container->buckets = containers->kind->fewest_buckets;
        container->roots = must_calloc(container->buckets, sizeof(*container->roots));
    }
    return containers;
}

static void container_drop(const struct container_kind *kind, struct container *container)
{
    for (size_t bucket = 0; bucket < container->buckets; bucket++)
        while (container->roots[bucket] != NULL) {
            node_free(kind->unlink(&container->roots[bucket]));
            container->nodes--;
        }
    if (container->nodes != 0)
        bench_fail("%zu nodes were lost", container->nodes);
    free(container->roots);
}

static void finish(void *state)
{
    struct containers *containers = state;

    for (int thread = 0; thread < containers->threads; thread++)
        container_drop(containers->kind, &containers->all[thread]);
    free(containers->all);
    free(containers);
}

static const struct container_kind tree = {
    .find = tree_find,
    .unlink = tree_unlink,
    .fewest_buckets = 1,
};

static const struct container_kind hash_table = {
    .find = hash_find,
    .unlink = hash_unlink,
    .fewest_buckets = FEWEST_BUCKETS,
    .resized = true,
};

static const struct workload containers_workloads[] = {
    {
        .name = "tree",
        .operation = "insertion into, or removal from, a binary tree that grows and shrinks",
        .threads = {{1, false}, {2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 400000,
        .rounds = 3,
        .parameters = &tree,
        .prepare = prepare,
        .round = round_of_changes,
        .finish = finish,
    },
    {
        .name = "hash-table",
        .operation = "insertion into, or removal from, a hash table that grows and shrinks",
        .threads = {{1, false}, {2, false}, {4, true}, {16, false}, {64, false}},
        .operations = 600000,
        .rounds = 3,
        .parameters = &hash_table,
        .prepare = prepare,
        .round = round_of_changes,
        .finish = finish,
    },
};

const struct workload_family containers_family = {containers_workloads, WORKLOAD_COUNT(containers_workloads)};

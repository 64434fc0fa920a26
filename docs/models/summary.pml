/* The summary tree: no member is lost, and a finder takes away what is left over.
 *
 * Models lib/arena/summary.c: set_bit, clear_bit, set_above_leaf, clear_above_leaf, summary_add, summary_remove,
 * find_in_bucket. One bucket; words of two bits instead of 64; the root has one word, below it middle[0] with the leaves
 * leaf[0] and leaf[1]. Each step of Promela is one atomic access of the C code; all of them are seq_cst there, and so is
 * Spin's memory. One process per member stands for the member's publisher: arena_list lets one thread at a time publish
 * an arena (publish.pml).
 *
 *   member 0, 1: in leaf[0], added and removed: absent in the end
 *   member 2:    in leaf[1] from the start, removed and added again: present in the end
 *   finder:      looks for a member meanwhile, and takes away what it finds left over
 *
 * Asserted when nobody is inside any more: a member in its leaf has its bits in middle and root ("no member is missing"),
 * and a search finds it, whatever bits were left over above empty leaves.
 *
 * BROKEN: clear_above_leaf does not look at the leaf again after it took the bit above away. A member is lost.
 * EXACT: asserts that no bit is left over above an empty word. That does not hold: a thread that puts bits back
 * may be overtaken by the remover of the leaf's last member. It is why find_in_bucket clears bits.
 */
#define BIT(i) (1 << (i))

byte root;
byte middle;
byte leaf[2];
byte done;

inline set_bit(w, b)
{
    if
    :: (w & BIT(b)) != 0
    :: else -> w = w | BIT(b)
    fi
}

inline clear_bit(w, b, is_zero)
{
    atomic { w = w & ~BIT(b); is_zero = (w == 0) }
}

inline set_above_leaf(l)
{
    set_bit(middle, l);
    set_bit(root, 0)
}

inline clear_above_leaf(l)
{
    clear_bit(middle, l, middle_empty);
#ifndef BROKEN
    if
    :: leaf[l] != 0 -> set_above_leaf(l)
    :: else ->
#else
    if
    :: true ->
#endif
        if
        :: !middle_empty
        :: else ->
            clear_bit(root, 0, ignored);
            if
            :: middle == 0
            :: else -> set_bit(root, 0)
            fi
        fi
    fi
}

inline add(l, b)
{
    set_bit(leaf[l], b);
    set_above_leaf(l)
}

inline remove(l, b)
{
    clear_bit(leaf[l], b, leaf_empty);
    if
    :: !leaf_empty
    :: else -> clear_above_leaf(l)
    fi
}

/* found: 0 none, else leaf + 1 */
inline find(found)
{
    found = 255;
    do
    :: found != 255 -> break
    :: else ->
        if
        :: root == 0 -> found = 0
        :: else ->
            word = middle;
            if
            :: word == 0 ->
                clear_bit(root, 0, ignored);
                if
                :: middle == 0
                :: else -> set_bit(root, 0)
                fi
            :: else ->
                d_step { l = ((word & 1) != 0 -> 0 : 1) };
                if
                :: leaf[l] != 0 -> found = l + 1
                :: else -> clear_above_leaf(l)
                fi
            fi
        fi
    od
}

proctype comes_and_goes(byte b)
{
    bool leaf_empty, middle_empty, ignored;
    add(0, b);
    remove(0, b);
    done++
}

proctype stays()
{
    bool leaf_empty, middle_empty, ignored;
    remove(1, 0);
    add(1, 0);
    done++
}

proctype finder()
{
    bool middle_empty, ignored;
    byte found, word, l;
    find(found);
    done++
}

init
{
    bool middle_empty, ignored;
    byte found, word, l;
    atomic {
        leaf[1] = BIT(0);
        middle = BIT(1);
        root = BIT(0);
        run comes_and_goes(0);
        run comes_and_goes(1);
        run stays();
        run finder()
    }
    done == 4;
    assert(leaf[0] == 0 && leaf[1] == BIT(0));
    assert((middle & BIT(1)) != 0 && root == BIT(0));
#ifdef EXACT
    assert(middle == BIT(1));
#endif
    find(found);
    assert(found == 2);
    assert(middle == BIT(1))
}

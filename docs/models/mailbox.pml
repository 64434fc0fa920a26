/* Remote free: no block is lost or comes back twice, also when the pool changes its owner on the way.
 *
 * Models lib/heap/mailbox.c: post, receive, mailbox_drain; lib/heap/park.c: claim, hand_back, harvest_from with adopt_pool
 * (the owner change). A chain is one block here. Foreign lists are their thread's own and are left out.
 *
 * Heap 0 is parked and owns the pool. Two threads free blocks of it: each reads the owner from the slot map and pushes on
 * that heap's inbox with a CAS. One frees its block again after it has come back (it was allocated anew meanwhile), so
 * that an inbox sees the same address twice: what ABA would need. The other settles the heap that it posted to, when
 * that is parked (park_posted_to). A thread that runs heap 1 claims heap 0, drains it, makes the pool its own, hands heap 0
 * back and drains heap 1. A new thread takes heap 0, drains it and parks it. Whoever drains a block of a pool that is not
 * its heap's posts it on.
 *
 * Memory is sequentially consistent here. In C the push is a release, the drain an acquire, and the claim of a heap is
 * paired with its hand_back; no other pair of words is read by one thread and written by another in the opposite order.
 *
 * Asserted: a pool's list is touched by the thread that runs or has claimed its owner, one at a time; in the end every
 * block that was freed is on the list exactly once, and both inboxes are empty.
 *
 * BROKEN: the drain reads the inbox and then empties it, instead of exchanging: a block pushed in between is lost.
 * UNCHECKED: a drain takes every block for its own heap's: two threads change one pool's list.
 */
#define NONE  0
#define FIRST 1   /* blocks are 1 and 2 */
#define LAST  2

byte inbox[2];
byte next[3];
byte owner;          /* of the pool */
bool parked = true;  /* heap 0 */
byte on_list[3];     /* how often the block is on the pool's list */
byte freed[3];       /* how often it was freed */
byte in_list;        /* threads changing the list */
byte done;

inline post(b)
{
    to = owner;
    head = inbox[to];
    do
    :: true ->
        next[b] = head;
        if
        :: atomic { inbox[to] == head -> inbox[to] = b }; break
        :: atomic { inbox[to] != head -> head = inbox[to] }
        fi
    od
}

/* Takes all of `heap`'s inbox. */
inline drain(heap)
{
#ifdef BROKEN
    message = inbox[heap];
    inbox[heap] = NONE;
#else
    atomic { message = inbox[heap]; inbox[heap] = NONE };
#endif
    do
    :: message == NONE -> break
    :: else ->
        following = next[message];
#ifdef UNCHECKED
        if
        :: true ->
#else
        if
        :: owner != heap -> post(message)
        :: else ->
#endif
            in_list++;
            assert(in_list == 1 && owner == heap);
            on_list[message]++;
            in_list--
        fi;
        message = following
    od
}

proctype frees_once()
{
    byte message, following, to, head;
    post(LAST);
    freed[LAST]++;
    if
    :: atomic { to == 0 && parked -> parked = false }; drain(0); parked = true
    :: true
    fi;
    done++
}

proctype frees_again()
{
    byte to, head;
    post(FIRST);
    freed[FIRST]++;
    if
    :: atomic { on_list[FIRST] == 1 -> on_list[FIRST] = 0; freed[FIRST]-- } /* allocated again */
        post(FIRST);
        freed[FIRST]++
    :: true
    fi;
    done++
}

inline claim()
{
    atomic { parked -> parked = false }
}

/* Runs heap 1. */
proctype adopter()
{
    byte message, following, to, head;
    claim();
    drain(0);
    in_list++;
    assert(in_list == 1 && owner == 0);
    owner = 1;
    in_list--;
    parked = true;
    drain(1);
    done++
}

proctype new_thread()
{
    byte message, following, to, head;
    claim();
    drain(0);
    drain(0);
    parked = true;
    done++
}

init
{
    byte message, following, to, head;
    atomic {
        run frees_once();
        run frees_again();
        run adopter();
        run new_thread()
    }
    done == 4;
    claim();
    drain(0);
    drain(1);
    assert(inbox[0] == NONE && inbox[1] == NONE);
    assert(freed[FIRST] == 1 && on_list[FIRST] == 1);
    assert(freed[LAST] == 1 && on_list[LAST] == 1)
}

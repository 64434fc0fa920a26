/* An arena's header is never touched after it was unmapped.
 *
 * Models lib/os/rcu.c: reader_enter, reader_leave, grace_sample, grace_has_passed; lib/arena/arena_list.c: arena_list_get,
 * arena_list_retire, arena_list_revive, arena_list_unmap; lib/arena/housekeeper.c: step_grace, housekeeper_revive_one.
 * One arena, two readers, each with two read sections, one housekeeper.
 *
 * What has to be shown is that a reader needs no barrier between the store that opens its section and the loads of
 * the list. So each reader has a store buffer: its stores to `sections` wait there, in order, and come to memory at any
 * later moment, while its loads go to memory at once. That lets a load overtake the store before it, as x86-64 does,
 * and on aarch64 it is the one reordering that matters: the last store of a section is a release, so what was read inside is
 * done when it is seen. membarrier(2) is a full barrier in every running thread: here it empties all store buffers.
 *
 * Asserted: whoever reads the header inside a section finds it mapped. When a retired arena is taken back into use instead,
 * readers go on. In the end nobody is blocked.
 *
 * BROKEN: grace_sample without the membarrier. A reader whose store is on its way is not seen, and its arena unmapped.
 * EARLY: the sample is taken before the arena is off the list.
 * FENCE: no membarrier, as where the kernel has none, but a fence in reader_enter. This holds.
 */
#define READERS  2
#define SECTIONS 2
#define QUEUE    4

bool listed = true;  /* arenas[number] != NULL */
bool mapped = true;
byte sections[READERS];
byte sampled[READERS];
byte left;

/* A reader's store buffer: the values written, oldest first. */
typedef buffer { byte value[QUEUE]; byte used };
buffer stores[READERS];

inline store(me, number)
{
    d_step { stores[me].value[stores[me].used] = number; stores[me].used++ }
}

/* The oldest store of a reader comes to memory. */
inline drain_one(me)
{
    d_step {
        stores[me].used > 0 ->
        sections[me] = stores[me].value[0];
        stores[me].value[0] = stores[me].value[1];
        stores[me].value[1] = stores[me].value[2];
        stores[me].value[2] = stores[me].value[3];
        stores[me].value[3] = 0;
        stores[me].used--
    }
}

active [READERS] proctype memory()
{
    byte me = _pid;
end:
    do
    :: drain_one(me)
    od
}

active [READERS] proctype reader()
{
    byte me = _pid - READERS;
    byte count;
    bool found;
    do
    :: count == 2 * SECTIONS -> break
    :: else ->
        count++;
        store(me, count);           /* odd: reader_enter */
#ifdef FENCE
        stores[me].used == 0;
#endif
        found = listed;             /* arena_list_get */
        if
        :: found ->
            assert(mapped);         /* arena_claim */
            assert(mapped)          /* publish */
        :: else
        fi;
        count++;
        store(me, count);           /* even, a release: reader_leave */
    od;
    left++
}

inline membarrier()
{
    /* One thread after the other, at any moment of its own. */
    stores[0].used == 0;
    stores[1].used == 0
}

inline sample()
{
    who = 0;
    do
    :: who == READERS -> break
    :: else ->
        sampled[who] = ((sections[who] & 1) != 0 -> sections[who] : 0);
        who++
    od
}

inline has_passed(answer)
{
    who = 0;
    answer = true;
    do
    :: who == READERS -> break
    :: else ->
        if
        :: sampled[who] != 0 && sections[who] == sampled[who] -> answer = false
        :: else
        fi;
        who++
    od
}

active proctype housekeeper()
{
    byte who;
    bool passed;
#ifdef EARLY
    membarrier();
    sample();
    listed = false;
#else
    listed = false;                 /* arena_list_retire */
    if
    :: true ->
        listed = true;              /* arena_list_revive */
        listed = false
    :: true
    fi;
#if !defined(BROKEN) && !defined(FENCE)
    membarrier();
#endif
    sample();
#endif
    do
    :: has_passed(passed);
        if
        :: passed -> break
        :: else ->
            if
            :: true                 /* the next tick looks again */
            :: true -> goto revived /* housekeeper_revive_one */
            fi
        fi
    od;
    mapped = false;                 /* arena_list_unmap */
    goto finished;
revived:
    listed = true;
finished:
    left == READERS
}

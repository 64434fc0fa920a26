/* A heap is held by one thread at a time, and nothing that one holder did is lost to the next.
 *
 * Models lib/heap/park.c: park_is_parked, claim, hand_back, claim_next, new_heap, park_take, park_leave, settle_parked (in
 * park_tend, park_posted_to and park_settle_all), park_harvest. Two heaps with one word of bits. Two threads come and go; one
 * tends parked heaps; one harvests. Heap 1 does not exist yet in the beginning: who finds no parked heap makes it.
 *
 * The heap itself is one number, read and written back by whoever holds it, in two steps: a second holder in between, or one
 * that sees an older state, would be seen. In C the bit is set by a release and cleared by an acquire.
 *
 * Asserted: at most one holder per heap; the number of a heap is the number of times it was held; in the end every heap that
 * was made is parked; a number is given to one new heap only.
 *
 * BROKEN: claim takes the bit that it saw for its own, without asking what its fetch_and found.
 */
#define HEAPS 2
#define BIT(i) (1 << (i))

byte parked = 1;       /* heap 0 */
byte heap_count = 1;
byte holders[HEAPS];
byte held[HEAPS];      /* how often, counted at the claim */
byte state[HEAPS];     /* how often, counted by the holders */
byte made[HEAPS];
byte done;

inline claim(number, won)
{
    won = (parked & BIT(number)) != 0;        /* park_is_parked */
    if
    :: !won
    :: else ->
#ifdef BROKEN
        parked = parked & ~BIT(number)
#else
        atomic { won = (parked & BIT(number)) != 0; parked = parked & ~BIT(number) }
#endif
    fi
}

inline hold(number)
{
    atomic { holders[number]++; assert(holders[number] == 1); held[number]++ };
    seen = state[number];
    state[number] = seen + 1
}

inline hand_back(number)
{
    holders[number]--;
    parked = parked | BIT(number)
}

/* number: the heap, or HEAPS */
inline claim_next()
{
    number = 0;
    won = false;
    do
    :: number >= heap_count -> number = HEAPS; break
    :: else ->
        word = parked >> number;
        if
        :: word == 0 -> number = HEAPS; break
        :: else ->
            d_step {
                if
                :: (word & 1) == 0 -> number++
                :: else
                fi
            };
            claim(number, won);
            if
            :: won -> break
            :: else
            fi
        fi
    od
}

/* number: the new heap, or HEAPS */
inline new_heap()
{
    number = heap_count;
    do
    :: number >= HEAPS -> number = HEAPS; break
    :: else ->
        if
        :: atomic { heap_count == number -> heap_count = number + 1 };
            made[number]++;
            assert(made[number] == 1);
            break
        :: atomic { heap_count != number -> number = heap_count }
        fi
    od
}

proctype thread()
{
    byte number, word, seen;
    bool won;
    claim_next();
    if
    :: number == HEAPS -> new_heap()
    :: else
    fi;
    if
    :: number < HEAPS ->
        hold(number);
        hand_back(number)
    :: else            /* served by the late heap */
    fi;
    done++
}

proctype tends()
{
    byte number, seen;
    bool won;
    number = 0;
    do
    :: number >= heap_count -> break
    :: else ->
        claim(number, won);
        if
        :: won ->
            hold(number);
            hand_back(number)
        :: else
        fi;
        number++
    od;
    done++
}

proctype harvests()
{
    byte number, word, seen;
    bool won;
    claim_next();
    if
    :: number < HEAPS ->
        hold(number);
        hand_back(number)
    :: else
    fi;
    done++
}

init
{
    atomic {
        run thread();
        run thread();
        run tends();
        run harvests()
    }
    done == 4;
    assert(parked == BIT(heap_count) - 1);
    assert(state[0] == held[0] && state[1] == held[1])
}

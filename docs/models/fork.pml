/* Fork: what the locks guard is whole in the child, nobody waits for ever, and a fork is let through.
 *
 * Models lib/api/process.c: before_fork, unlock_all, after_fork_child; lib/os/lock.h, lib/os/lock.c: the locks, the gate;
 * lib/os/rcu.c, lib/heap/thread.c, lib/raw/raw.c, lib/arena/housekeeper.c, lib/guard/guard.c: who takes which lock inside
 * which; lib/arena/arena_list.c: arena_list_after_fork_child; lib/heap/mailbox.c: post.
 *
 * A world is the memory of one process; a fork copies it. What a thread does under a lock is two steps, with `half` set in
 * between. One thread forks, between handlers of others that allocate; a second works; a third works or forks. A child
 * allocates, posts to the heap of a thread that it does not have, publishes, and forks again. It has one thread and shares
 * nothing, so it runs in one step, unless it blocks.
 *
 * Asserted: nobody enters what a lock guards while it is half written, the forking thread's handlers and children included;
 * who releases a lock holds it; after a fork waits at the gate no thread takes the raw lock, nor the housekeeping lock, more
 * than once before it; a child finds no section open and publishes right. In the end nobody is blocked, in any process.
 *
 * SIGNALS: a signal handler forks at any step of a lock: before it is taken, under it, after it. Also right. (What the
 * children of such forks do is not in the model; nor threads that a child makes.)
 *
 * ORDER: raw before late. DEAF: lock_forking is not set. OPEN: the locks are released with
 * lock_forking still set. NOGATE: nobody passes through the gate. SKIP=lock: prepare leaves one lock out. LOCKED: a post takes
 * a lock, that fork does not know. UNFORGOTTEN: publishers are not forgotten. UNLEFT: sections are not left. INSIDE: a
 * handler's fork does not ask lock_inside. LATER: lock_inside is raised after the lock is taken. EARLIER: it is lowered
 * before the release. UNPAIRED: a handler's fork releases what it did not take.
 */
#define REGISTERING  0
#define LATE         1
#define GATE         2
#define RAW          3
#define HOUSEKEEPING 4
#define GUARD        5
#define LOCKS        6

#if defined(INSIDE) || defined(LATER) || defined(EARLIER) || defined(UNPAIRED)
#define SIGNALS
#endif
#ifdef SIGNALS
#define FIRST_DEPTH 1
#else
#define FIRST_DEPTH 0
#endif
#ifndef SKIP
#define SKIP LOCKS
#endif
#define WORLDS 3

typedef world {
    byte owner[LOCKS]; /* 0: free */
    bool half[LOCKS];
    byte inbox;
    bool inbox_locked;
    bool bitmap;
    bool bucket;
    byte publishing;   /* 0 nobody, 1 publishing, 2 again */
    bool in_section;   /* of the second thread */
};
world in[WORLDS];
byte worlds = 1;       /* a chain: a parent waits for its child, with which it shares nothing */
bool fork_waits;
byte overtook[8];      /* by thread: raw in bit 0, housekeeping in bit 1 */
#ifdef SIGNALS
byte signals = 1;
#else
byte signals = 0;
#endif

inline copy_world(from, to)
{
    d_step {
        assert(worlds < WORLDS);
        to = worlds;
        worlds++;
        i = 0;
        do
        :: i == LOCKS -> break
        :: else ->
            in[to].owner[i] = in[from].owner[i];
            in[to].half[i] = in[from].half[i];
            i++
        od;
        in[to].inbox = in[from].inbox;
        in[to].inbox_locked = in[from].inbox_locked;
        in[to].bitmap = in[from].bitmap;
        in[to].bucket = in[from].bucket;
        in[to].publishing = in[from].publishing;
        in[to].in_section = in[from].in_section;
        i = 0
    }
}

inline end_world()
{
    d_step {
        i = 0;
        do
        :: i == LOCKS -> break
        :: else -> in[here].owner[i] = 0; in[here].half[i] = false; i++
        od;
        in[here].inbox = 0; in[here].inbox_locked = false; in[here].bitmap = false;
        in[here].bucket = false; in[here].publishing = 0; in[here].in_section = false;
        worlds--
    }
}

inline unlock(l)
{
    d_step { assert(in[here].owner[l] == me); in[here].owner[l] = 0 }
}

inline lock(l)
{
    atomic { in[here].owner[l] == 0 -> in[here].owner[l] = me }
}

/* A fork by a signal handler of this thread. */
inline signal()
{
#ifdef SIGNALS
    if
    :: atomic { signals > 0 -> signals-- };
        if
#ifndef INSIDE
        :: inside > 0 ->               /* model: fork left-alone */
#ifdef UNPAIRED
            unlock(RAW)
#else
            skip
#endif
#endif
        :: else ->
            lock(REGISTERING); lock(LATE); lock(GATE); lock(RAW); lock(HOUSEKEEPING); lock(GUARD);
            unlock(GUARD); unlock(HOUSEKEEPING); unlock(RAW); unlock(GATE); unlock(LATE); unlock(REGISTERING)
        fi
    :: true
    fi
#else
    skip
#endif
}

inline acquire(l)                      /* model: fork acquire */
{
    if
    :: forking
    :: else ->
#ifdef LATER
        lock(l);
        signal();
        inside++
#else
        inside++;
        signal();
        lock(l);
        signal()
#endif
    fi
}

inline release(l)                      /* model: fork release */
{
    if
    :: forking
    :: else ->
#ifdef EARLIER
        inside--;
        signal();
        unlock(l)
#else
        unlock(l);
        signal();
        inside--
#endif
    fi
}

inline use(l)
{
    d_step { assert(!in[here].half[l]); in[here].half[l] = true };
    in[here].half[l] = false
}

inline with(l)
{
    acquire(l);
    use(l);
    release(l)
}

inline let_fork_pass()                 /* model: fork let-pass */
{
#ifndef NOGATE
    acquire(GATE);
    release(GATE)
#else
    skip
#endif
}

/* How often this thread came before a fork that waits. */
inline overtakes(once)
{
    d_step {
        if
        :: fork_waits && here == 0 && !forking -> assert((overtook[me] & once) == 0); overtook[me] = overtook[me] | once
        :: else
        fi
    }
}

inline raw()                           /* model: fork after-gate */
{
    if
    :: fork_waits && here == 0 -> let_fork_pass()
    :: else
    fi;
    acquire(RAW);
    overtakes(1);
    use(RAW);
    release(RAW)
}

inline post()                          /* model: fork post */
{
#ifdef LOCKED
    atomic { !in[here].inbox_locked -> in[here].inbox_locked = true };
    in[here].inbox++;
    in[here].inbox_locked = false
#else
    atomic { in[here].inbox++ }
#endif
}

inline publish()
{
    in[here].bitmap = !in[here].bitmap;
    if
    :: d_step { in[here].publishing == 0 -> in[here].publishing = 1 };
        do
        :: true ->
            in[here].bucket = in[here].bitmap;
            if
            :: d_step { in[here].publishing == 1 -> in[here].publishing = 0 }; break
            :: d_step { in[here].publishing == 2 -> in[here].publishing = 1 }
            fi
        od
    :: d_step { in[here].publishing != 0 -> in[here].publishing = 2 }
    fi
}

/* One call of the library, of any kind. */
inline work()
{
    if
    :: true -> raw()
    :: true -> with(GUARD)
    :: true -> acquire(REGISTERING);           /* model: fork registers */
        if
        :: true -> raw()
        :: use(REGISTERING)
        fi;
        release(REGISTERING)
    :: true -> acquire(LATE);                  /* model: fork late */
        if
        :: true -> raw()
        :: true -> with(HOUSEKEEPING)
        :: true -> with(GUARD)
        :: use(LATE)
        fi;
        release(LATE)
    :: true -> acquire(HOUSEKEEPING);          /* model: fork trim */
        overtakes(2);
        use(HOUSEKEEPING);
        release(HOUSEKEEPING);
        let_fork_pass()
    fi
}

/* A handler of another library allocates. */
inline allocates()
{
    if
    :: true -> with(LATE)
    :: true -> raw()
    :: true -> with(HOUSEKEEPING)
    :: true -> with(GUARD)
    fi
}

inline take(l)
{
    if
    :: l == SKIP
    :: else -> acquire(l)
    fi
}

inline give(l)
{
    if
    :: l == SKIP
    :: else -> release(l)
    fi
}

inline before_fork()
{
    take(REGISTERING);                 /* model: fork takes-registering */
#ifdef ORDER
    take(RAW);
    take(LATE);
    take(GATE);
#else
    take(LATE);                        /* model: fork takes-late */
    take(GATE);                        /* model: fork takes-gate */
    d_step {
        if
        :: here == 0 -> fork_waits = true
        :: else
        fi;
        overtook[1] = 0; overtook[2] = 0; overtook[3] = 0
    };
    take(RAW);                         /* model: fork takes-raw */
#endif
    take(HOUSEKEEPING);                /* model: fork takes-housekeeping */
    take(GUARD);                       /* model: fork takes-guard */
#ifndef DEAF
    forking = true                     /* model: fork opens */
#endif
}

inline unlock_all()                    /* model: fork unlocks */
{
#ifndef OPEN
    forking = false;
#endif
    give(GUARD);
    give(HOUSEKEEPING);
    give(RAW);
    d_step {
        if
        :: here == 0 -> fork_waits = false
        :: else
        fi
    };
    give(GATE);
    give(LATE);
    give(REGISTERING);
    forking = false
}

inline after_fork_child()              /* model: fork child */
{
#ifndef UNLEFT
    in[here].in_section = false;       /* model: fork sections */
#endif
#ifndef UNFORGOTTEN
    in[here].publishing = 0;           /* model: fork forgets */
#endif
    unlock_all()
}

proctype child_of_fork(byte here; byte me; byte depth)
{
    bool forking = true;
    byte inside = LOCKS, child, i;
    atomic {
        allocates();
        after_fork_child();
        allocates();
        assert(!in[here].half[REGISTERING] && !in[here].half[LATE] && !in[here].half[RAW] &&
               !in[here].half[HOUSEKEEPING] && !in[here].half[GUARD]);
        assert(!in[here].in_section);
        post();
        publish();
        assert(in[here].publishing == 0 && in[here].bucket == in[here].bitmap);
        if
        :: depth == 0 && worlds < WORLDS ->
            before_fork();
            allocates();
            copy_world(here, child);
            run child_of_fork(child, me, 1);
            worlds == child;
            unlock_all()
        :: else
        fi;
        end_world()
    }
}

inline forks()
{
    before_fork();
    allocates();
    atomic { copy_world(here, child); run child_of_fork(child, me, FIRST_DEPTH); worlds == child; child = 0 };
    unlock_all()
}

proctype forker(byte me)
{
    bool forking;
    byte here, inside, child, i;
    forks();
    assert(inside == 0)
}

proctype worker(byte me)
{
    bool forking;
    byte here, inside, child, i, calls;
    do
    :: calls == 2 -> break
    :: calls < 2 ->
        calls++;
        work()
    od;
    assert(inside == 0)
}

/* Forks of two threads at a time are kept apart by the first lock. */
proctype either(byte me)
{
    bool forking;
    byte here, inside, child, i;
    if
    :: true -> forks()
    :: true -> post()
    :: in[here].in_section = true;
        publish();
        in[here].in_section = false
    fi;
    assert(inside == 0)
}

init
{
    atomic {
        run forker(1);
        run worker(2);
        run either(3)
    }
}

/* Publishing: when nobody is inside, an arena is in the bucket of its bitmap, and in no other.
 *
 * Models lib/arena/arena_list.c: bucket_by_bitmap, move_to_bucket, begin_publishing, end_publishing, publish. One arena with
 * two words of one bit; as in C the words are read one after the other, so a bucket may be computed from two moments. The
 * bucket is a number that no two bitmaps share, which asks more than the C code needs. The summary is one bit per bucket
 * (summary.pml has its inside). All accesses are seq_cst in C; so is Spin's memory.
 *
 * Three threads change the bitmap and publish, at any time: one claims, one releases, one (the housekeeper) holds all that is
 * free and gives it back.
 *
 * Asserted whenever the last thread leaves: nobody is publishing, `bucket` is the bitmap's, and the arena is in just that set.
 * Nobody ever waits: no process blocks (Spin's check for invalid end states), and a publisher's loop is bounded by the
 * notes others leave.
 *
 * BROKEN: end_publishing stores NOBODY without looking whether a note was left.
 */
#define NOBODY     0
#define PUBLISHING 1
#define AGAIN      2

byte word[2];         /* free bits: 1 or 0 */
byte publishing;
byte bucket;          /* word[0] + 2 * word[1]; 0 is BUCKET_NONE */
bool in_set[4];
byte inside;

inline bucket_by_bitmap(result)
{
    result = word[0];
    result = result + 2 * word[1]
}

inline move_to_bucket(to)
{
    old = bucket;
    if
    :: old == to
    :: else ->
        bucket = to;
        if
        :: to != 0 -> in_set[to] = true
        :: else
        fi;
        if
        :: old != 0 -> in_set[old] = false
        :: else
        fi
    fi
}

inline begin_publishing()
{
    seen = publishing;
    do
    :: seen == AGAIN -> break
    :: seen != AGAIN ->
        if
        :: atomic { publishing == seen -> publishing = (seen == NOBODY -> PUBLISHING : AGAIN) };
            publisher = (seen == NOBODY);
            break
        :: atomic { publishing != seen -> seen = publishing }
        fi
    od
}

inline end_publishing()
{
#ifdef BROKEN
    publishing = NOBODY;
    publisher = false
#else
    if
    :: atomic { publishing == PUBLISHING -> publishing = NOBODY }; publisher = false
    :: publishing == AGAIN -> publishing = PUBLISHING
    fi
#endif
}

inline publish()
{
    publisher = false;
    bucket_by_bitmap(mine);
    seen = publishing;
    if
    :: seen == NOBODY && bucket == mine
    :: seen == NOBODY && bucket != mine -> begin_publishing()
    :: seen != NOBODY -> begin_publishing()
    fi;
    do
    :: !publisher -> break
    :: publisher ->
        bucket_by_bitmap(mine);
        move_to_bucket(mine);
        end_publishing()
    od
}

inline leave()
{
    atomic {
        inside--;
        if
        :: inside == 0 ->
            assert(publishing == NOBODY);
            assert(bucket == word[0] + 2 * word[1]);
            assert(in_set[1] == (bucket == 1) && in_set[2] == (bucket == 2) && in_set[3] == (bucket == 3))
        :: else
        fi
    }
}

/* Takes the bit of its word, and gives it back later. */
proctype claimer()
{
    byte mine, seen, old;
    bool publisher;
    atomic { word[0] == 1 -> word[0] = 0; inside++ };
    publish();
    leave();
    atomic { inside++; word[0] = 1 };
    publish();
    leave()
}

/* Holds the bit of the other word from the start, gives it back. */
proctype releaser()
{
    byte mine, seen, old;
    bool publisher;
    atomic { inside++; word[1] = 1 };
    publish();
    leave()
}

proctype housekeeper()
{
    byte mine, seen, old;
    bool publisher;
    bool held[2];
    inside++;
    atomic { held[0] = word[0]; word[0] = 0 };
    atomic { held[1] = word[1]; word[1] = 0 };
    publish();
    leave();
    inside++;
    if
    :: held[0] -> word[0] = 1
    :: else
    fi;
    if
    :: held[1] -> word[1] = 1
    :: else
    fi;
    publish();
    leave()
}

init
{
    atomic {
        word[0] = 1;
        bucket = 1;
        in_set[1] = true;
        run claimer();
        run releaser();
        run housekeeper()
    }
}

package resourcemodel

// Four codes are in one word, so that they are compared at once: the highest bit of each
// lane is free for the carry.

const (
	laneBits  = 16
	laneCount = 64 / laneBits
	laneTops  = 0x8000_8000_8000_8000
	laneOnes  = 0x0001_0001_0001_0001
)

// spread puts a code into all lanes.
func spread(k code) uint64 { return uint64(k) * laneOnes }

func laneOf(words []uint64, i uint32) uint16 {
	return uint16(words[i/laneCount] >> (i % laneCount * laneBits))
}

func setLane(words []uint64, i uint32, k uint16) {
	shift := i % laneCount * laneBits
	w := &words[i/laneCount]
	*w = *w&^(0xffff<<shift) | uint64(k)<<shift
}

// noLess gives the tops of the lanes that are no less; the tops of both are clear.
func noLess(w, least uint64) uint64 { return ((w | laneTops) - least) & laneTops }

// zeroLanes gives the tops of the lanes that are 0; the tops of w are clear.
func zeroLanes(w uint64) uint64 { return ^(w + 0x7fff_7fff_7fff_7fff) & laneTops }

// gather gives the tops as four bits.
func gather(tops uint64) uint64 {
	tops >>= laneBits - 1
	return (tops | tops>>15 | tops>>30 | tops>>45) & 0xf
}

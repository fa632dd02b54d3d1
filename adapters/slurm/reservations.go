package slurm

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// booking is what is asked of Slurm for a reservation.
type booking struct {
	Name        string // at Slurm
	Partition   string
	User        string
	From, Until time.Time // From zero: now
	Cores       int       // in all; 0: whole nodes
	Nodes       int       // 0: as many as it takes
}

// options gives scontrol's words for it.
//
// Cores are counted wherever the cluster can, for whole nodes as well: reservations of
// nodes alone are given nodes of which others have reserved cores, and fewer nodes than
// they asked for (seen with 22.05). Where nodes are all that can be had, dead ones are
// replaced, which Slurm does not do where cores are counted. Jobs that run are never
// ignored: Slurm looks for what is free by the limits of their times. What has not begun
// when the reservation ends goes on waiting as if it had none.
func (b *booking) options() []string {
	start, flags := "now", "NO_HOLD_JOBS_AFTER_END"
	if !b.From.IsZero() {
		start = clock(b.From)
	}
	o := []string{"create", "reservation", "ReservationName=" + b.Name, "StartTime=" + start, "EndTime=" + clock(b.Until), "Users=" + b.User}
	if b.Partition != "" {
		o = append(o, "PartitionName="+b.Partition)
	}
	if b.Nodes > 0 {
		o = append(o, "NodeCnt="+strconv.Itoa(b.Nodes))
	}
	if b.Cores > 0 {
		o = append(o, "CoreCnt="+strconv.Itoa(b.Cores))
	} else {
		flags += ",REPLACE_DOWN"
	}
	return append(o, "Flags="+flags)
}

// booked is what Slurm says of a reservation.
type booked struct {
	Name, Partition string
	From, Until     time.Time
	Nodes           []string
	CPUs            int
	Active          bool
}

// parseReservations reads "scontrol show reservation -o". What makes no sense is left
// out.
func parseReservations(out string) []booked {
	var all []booked
	for line := range strings.Lines(out) {
		p := pairs(line)
		b := booked{Name: p["ReservationName"], Partition: null(p["PartitionName"]), From: epoch(p["StartTime"]), Until: epoch(p["EndTime"]), Active: p["State"] == "ACTIVE"}
		if b.Name == "" || b.From.IsZero() || b.Until.IsZero() {
			continue
		}
		if nodes := null(p["Nodes"]); nodes != "" {
			b.Nodes = expand(nodes)
		}
		// CoreCnt counts wrongly where a reservation has several nodes (seen with 22.05).
		for tres := range strings.SplitSeq(p["TRES"], ",") {
			if n, ok := strings.CutPrefix(tres, "cpu="); ok {
				b.CPUs = number(n)
			}
		}
		all = append(all, b)
	}
	return all
}

// book makes a reservation. One of that name that is there already is no error.
func (c *commands) book(ctx context.Context, b *booking) error {
	const op = "slurm.Reserve"
	if err := c.budget.wait(ctx); err != nil {
		return err
	}
	a, started, err := c.command(ctx, "", "scontrol", b.options()...)
	switch {
	case err != nil && started: // it may have been done
		return fail.Errorf(op, fail.Uncertain, b.Name, "Slurm did not answer whether it made the reservation").Because(err)
	case err != nil:
		return err
	case a.code == 0 || strings.Contains(string(a.complaint), "Duplicate reservation name"):
		return nil
	}
	said, _, _ := strings.Cut(string(a.complaint), "\nNote,") // which is about what we never do
	err = complaint(op, []byte(said))
	if fail.Is(err, fail.Exhausted) {
		return fail.Errorf(op, fail.Exhausted, b.Name, "the site has no room for the reservation in its window, as far as it can know: %s", fail.Sentence(err))
	}
	return err
}

// bookings lists all reservations that there are, whosever they are.
func (c *commands) bookings(ctx context.Context) ([]booked, error) {
	out, err := c.ask(ctx, "scontrol", "--oneliner", "show", "reservation")
	if err != nil {
		return nil, err
	}
	return parseReservations(out), nil
}

// unbook ends a reservation, if it is there.
func (c *commands) unbook(ctx context.Context, name string) (there bool, err error) {
	_, err = c.act(ctx, "scontrol", "delete", "ReservationName="+name)
	switch {
	case fail.Is(err, fail.NotFound):
		return false, nil
	case fail.Is(err, fail.Conflict):
		return true, fail.Errorf("slurm.Unreserve", fail.Conflict, name, "jobs run in the reservation; end them, or wait for their end")
	}
	return err == nil, err
}

// operator reports whether accounting has an account as one of Slurm's operators.
func (c *commands) operator(ctx context.Context, user string) bool {
	out, err := c.ask(ctx, "sacctmgr", "--noheader", "--parsable2", "list", "user", "name="+user, "format=adminlevel")
	if err != nil {
		return false
	}
	level := strings.TrimSpace(out)
	return level == "Operator" || level == "Administrator"
}

// planBooking says what is asked of Slurm for a reservation, or what stands against it.
func (a *Adapter) planBooking(info *siteInfo, f *facts, r *adapters.Reservation) (*booking, error) {
	const op = "slurm.Reserve"
	refuse := func(format string, args ...any) error {
		return fail.Errorf(op, fail.Unsupported, string(r.Tag), "%s", fmt.Sprintf(format, args...))
	}
	now := time.Now()
	if err := r.Validate(now); err != nil {
		return nil, err
	}
	if f.Select == "" {
		return nil, fail.Errorf(op, fail.Unavailable, string(r.Tag), "Slurm has not told yet how it counts what it has")
	}
	b := &booking{Name: a.reservationFor(r.Tag), Until: r.Until.Add(time.Second - time.Nanosecond).Truncate(time.Second), User: a.own.user, Nodes: r.Nodes}
	if r.From.After(now) {
		b.From = r.From.Truncate(time.Second)
	}
	if r.Account != "" && r.Account != a.own.user && r.Account != strconv.Itoa(a.own.uid) {
		who, err := lookupAccount(r.Account)
		if err != nil {
			return nil, refuse("%v", err)
		}
		b.User = who.user
	}
	share := r.Share
	if share == "" {
		share = a.settings.Share
	}
	var in *partition
	for i := range info.Partitions {
		if p := &info.Partitions[i]; share != "" && p.Name == share || share == "" && p.Default {
			in = p
		}
	}
	if in == nil {
		if share == "" {
			return nil, refuse("Slurm has no share that is the default; name one")
		}
		return nil, refuse("the site has no share %q", clipped(share))
	}
	b.Partition = in.Name
	cpus, least, threads := 0, 0, 1
	nodes := 0
	for i := range info.Nodes {
		n := &info.Nodes[i]
		if !contains(n.Partitions, in.Name) {
			continue
		}
		nodes++
		cpus += n.CPUs
		threads = max(threads, n.Threads)
		if least == 0 || n.CPUs < least {
			least = n.CPUs
		}
	}
	want := r.CPUs
	if want == 0 {
		want = r.Nodes * least
	}
	switch {
	case r.Nodes > nodes:
		return nil, refuse("the share %s has %d nodes, fewer than the %d that are asked for", in.Name, nodes, r.Nodes)
	case want > cpus:
		return nil, refuse("the share %s has %d CPUs, fewer than the %d that are asked for", in.Name, cpus, want)
	}
	if !f.cores() { // whole nodes are all that there is
		if b.Nodes = r.Nodes; b.Nodes == 0 {
			b.Nodes = (want + least - 1) / least
		}
		return b, nil
	}
	b.Cores = (want + threads - 1) / threads
	if b.Nodes > 0 { // as many of each
		b.Cores = (b.Cores + b.Nodes - 1) / b.Nodes * b.Nodes
	}
	return b, nil
}

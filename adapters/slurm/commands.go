package slurm

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// commands is the way to Slurm by its commands.
type commands struct {
	bin, conf string // where they are, and the configuration that they read; "" is the usual
	budget    *budget
}

// PathCommands is the way by commands.
const PathCommands adapters.Path = "commands"

func (c *commands) path() adapters.Path { return PathCommands }

// ask runs a command that only asks.
func (c *commands) ask(ctx context.Context, name string, args ...string) (string, error) {
	if err := c.budget.wait(ctx); err != nil {
		return "", err
	}
	a, _, err := c.command(ctx, "", name, args...)
	if err != nil {
		return "", err
	}
	if a.code != 0 {
		err := complaint("slurm."+name, a.complaint)
		if fail.Is(err, fail.Uncertain) { // nothing was to be done
			err = fail.Errorf("slurm."+name, fail.Unavailable, "", "%s", fail.Sentence(err))
		}
		return "", err
	}
	return string(a.out), nil
}

// ping says at once whether the controller is there, where other commands wait for it.
func (c *commands) ping(ctx context.Context) error {
	out, err := c.ask(ctx, "scontrol", "ping")
	if err != nil {
		return fail.Errorf("slurm.ping", fail.Unavailable, "", "Slurm's controller does not answer").Because(err)
	}
	if !strings.Contains(out, "UP") {
		return fail.Errorf("slurm.ping", fail.Unavailable, "", "Slurm's controller is down")
	}
	return nil
}

func (c *commands) probe(ctx context.Context) (*facts, error) {
	if err := c.ping(ctx); err != nil {
		return nil, err
	}
	out, err := c.ask(ctx, "scontrol", "show", "config")
	if err != nil {
		return nil, err
	}
	f, err := parseConfig(out)
	if err != nil {
		return nil, fail.E("slurm.probe", fail.Unavailable, "", err)
	}
	if a, _, err := c.command(ctx, "", "srun", "--mpi=list"); err == nil { // it asks nobody
		f.MPI = strings.Fields(string(a.out) + " " + string(a.complaint))
	}
	return f, nil
}

func (c *commands) takes(*request) string { return "" }

// qualities lists the qualities of service that accounting knows; none without it.
func (c *commands) qualities(ctx context.Context) []string {
	out, err := c.ask(ctx, "sacctmgr", "--noheader", "--parsable2", "list", "qos", "format=name")
	if err != nil {
		return nil
	}
	return strings.Fields(out)
}

func (c *commands) submit(ctx context.Context, r *request, script string, members int) (int64, error) {
	if err := c.budget.wait(ctx); err != nil {
		return 0, err
	}
	a, started, err := c.command(ctx, script, "sbatch", append([]string{"--parsable"}, r.options(members)...)...)
	if err != nil {
		if started { // it may have been done
			return 0, fail.Errorf("slurm.submit", fail.Uncertain, r.Name, "Slurm did not answer whether it took the job").Because(err)
		}
		return 0, err
	}
	if a.code != 0 {
		return 0, complaint("slurm.submit", a.complaint)
	}
	id, _, _ := strings.Cut(strings.TrimSpace(string(a.out)), ";")
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, fail.Errorf("slurm.submit", fail.Uncertain, r.Name, "sbatch gave no job id").Because(fmt.Errorf("it gave %.200q", a.out))
	}
	return int64(n), nil
}

// options gives sbatch's options for the request, each in one argument, so that no
// value is ever taken for another option.
func (r *request) options(members int) []string {
	// All of sbatch's own environment, which is next to nothing: with less, Slurm has a
	// login shell of the user make one on the node, for each job.
	o := []string{"--export=ALL", "--job-name=" + r.Name, "--output=" + r.Log, "--error=" + r.Log, "--input=/dev/null", "--open-mode=append", "--chdir=" + r.Dir}
	text := func(option, value string) {
		if value != "" {
			o = append(o, option+"="+value)
		}
	}
	count := func(option string, n int64) {
		if n > 0 {
			o = append(o, option+"="+strconv.FormatInt(n, 10))
		}
	}
	flag := func(option string, set bool) {
		if set {
			o = append(o, option)
		}
	}
	text("--comment", r.Comment)
	text("--account", r.Account)
	text("--partition", r.Partition)
	text("--qos", r.QOS)
	text("--reservation", r.Reservation)
	nodes := strconv.Itoa(r.Nodes)
	if r.MaxNodes > r.Nodes {
		nodes += "-" + strconv.Itoa(r.MaxNodes)
	}
	if r.Nodes > 0 {
		o = append(o, "--nodes="+nodes)
	}
	count("--ntasks", int64(r.Tasks))
	count("--ntasks-per-node", int64(r.TasksPerNode))
	count("--cpus-per-task", int64(r.CPUsPerTask))
	if r.Memory > 0 {
		o = append(o, fmt.Sprintf("--mem=%dM", r.Memory))
	}
	if r.Tmp > 0 {
		o = append(o, fmt.Sprintf("--tmp=%dM", r.Tmp))
	}
	switch {
	case r.Minutes > 0:
		count("--time", r.Minutes)
	case r.Minutes < 0:
		o = append(o, "--time=UNLIMITED")
	}
	flag("--exclusive", r.Exclusive)
	flag("--hold", r.Hold)
	if r.Requeue {
		o = append(o, "--requeue")
	} else {
		o = append(o, "--no-requeue")
	}
	text("--nodelist", r.NodeList)
	text("--exclude", r.Exclude)
	if !r.Deadline.IsZero() {
		o = append(o, "--deadline="+clock(r.Deadline))
	}
	if !r.Begin.IsZero() {
		o = append(o, "--begin="+clock(r.Begin))
	}
	if r.Nice != 0 {
		o = append(o, "--nice="+strconv.Itoa(r.Nice))
	}
	text("--gres", r.Gres)
	text("--licenses", r.Licenses)
	text("--constraint", r.Constraint)
	if r.User != "" {
		o = append(o, "--uid="+strconv.Itoa(r.UID), "--gid="+strconv.Itoa(r.GID))
	}
	if members > 0 {
		o = append(o, fmt.Sprintf("--array=0-%d", members-1))
	}
	return o
}

// clock writes a time as sbatch reads it, in the zone that our commands run in.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05") }

func (c *commands) jobs(ctx context.Context, users []string) ([]record, error) {
	args := []string{"--noheader", "--array", "--states=all", "--Format=" + queueFormat}
	if len(users) > 0 {
		args = append(args, "--user="+strings.Join(users, ","))
	}
	out, err := c.ask(ctx, "squeue", args...)
	if err != nil {
		return nil, err
	}
	return parseQueue(out), nil
}

func (c *commands) past(ctx context.Context, names []string, since time.Time) ([]record, error) {
	args := []string{
		"--allocations", "--parsable2", "--noheader", "--duplicates", "--allusers", "--format=" + pastFormat,
		"--name=" + strings.Join(names, ","), "--starttime=" + clock(since),
	}
	out, err := c.ask(ctx, "sacct", args...)
	if err != nil {
		return nil, err
	}
	return parsePast(out), nil
}

func (c *commands) cancel(ctx context.Context, ids []jobID) error {
	if len(ids) == 0 {
		return nil
	}
	args := make([]string, len(ids))
	for i, id := range ids {
		args[i] = id.String()
	}
	_, err := c.act(ctx, "scancel", args...)
	if fail.Is(err, fail.NotFound) || fail.Is(err, fail.Conflict) { // of one that has ended
		return nil
	}
	return err
}

// act runs a command that does something which may be done twice.
func (c *commands) act(ctx context.Context, name string, args ...string) (string, error) {
	if err := c.budget.wait(ctx); err != nil {
		return "", err
	}
	a, _, err := c.command(ctx, "", name, args...)
	if err != nil {
		return "", err
	}
	if a.code != 0 {
		return "", complaint("slurm."+name, a.complaint)
	}
	return string(a.out), nil
}

func (c *commands) hold(ctx context.Context, ids []jobID, held bool) error {
	verb := "release"
	if held {
		verb = "hold"
	}
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = id.String()
	}
	_, err := c.act(ctx, "scontrol", verb, strings.Join(list, ","))
	return err
}

func (c *commands) suspend(ctx context.Context, id jobID, stopped bool) error {
	verb := "resume"
	if stopped {
		verb = "suspend"
	}
	_, err := c.act(ctx, "scontrol", verb, id.String())
	return err
}

func (c *commands) site(ctx context.Context) (*siteInfo, error) {
	nodes, err := c.ask(ctx, "scontrol", "--oneliner", "show", "node")
	if err != nil {
		return nil, err
	}
	partitions, err := c.ask(ctx, "scontrol", "--oneliner", "show", "partition")
	if err != nil {
		return nil, err
	}
	info := &siteInfo{Nodes: parseNodes(nodes), Partitions: parsePartitions(partitions)}
	if len(info.Nodes) == 0 || len(info.Partitions) == 0 {
		return nil, fail.Errorf("slurm.site", fail.Unavailable, "", "Slurm tells of no nodes or partitions")
	}
	info.join()
	info.Qualities = c.qualities(ctx)
	return info, nil
}

// join tells each partition its nodes.
func (s *siteInfo) join() {
	at := map[string]int{}
	for i := range s.Partitions {
		at[s.Partitions[i].Name] = i
	}
	for _, n := range s.Nodes {
		for _, name := range n.Partitions {
			if i, ok := at[name]; ok {
				s.Partitions[i].Nodes = append(s.Partitions[i].Nodes, n.Name)
			}
		}
	}
}

// token asks for a JSON web token for an account.
func (c *commands) token(ctx context.Context, user string, life time.Duration) (string, error) {
	out, err := c.act(ctx, "scontrol", "token", "username="+user, "lifespan="+strconv.Itoa(int(math.Ceil(life.Seconds()))))
	if err != nil {
		return "", err
	}
	_, token, ok := strings.Cut(strings.TrimSpace(out), "SLURM_JWT=")
	if !ok {
		return "", fail.Errorf("slurm.token", fail.Unavailable, "", "scontrol gives no token")
	}
	return token, nil
}

// mayActForOthers reports whether an account is one that Slurm trusts.
func mayActForOthers(f *facts, user string) bool {
	return os.Geteuid() == 0 || f != nil && f.SlurmUser == user
}

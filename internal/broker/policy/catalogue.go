package policy

import (
	"slices"

	"github.com/portolan-project/portolan/internal/fail"
)

// Description tells people about a policy.
type Description struct {
	Name       string      `json:"name"`
	Kind       Kind        `json:"kind"`
	What       string      `json:"what"` // it does, in a sentence
	Parameters []Parameter `json:"parameters,omitempty"`
}

// Parameter is one of a policy's. Values are numbers; a duration is in seconds.
type Parameter struct {
	Name    string  `json:"name"`
	What    string  `json:"what"` // it means, in a few words
	Default float64 `json:"default"`
	Least   float64 `json:"least"` // the bounds are among what is taken
	Most    float64 `json:"most"`
	Unit    Unit    `json:"unit,omitempty"`
}

func (d *Description) parameter(name string) *Parameter {
	for i := range d.Parameters {
		if d.Parameters[i].Name == name {
			return &d.Parameters[i]
		}
	}
	return nil
}

// values are a setting's parameters, the defaults among them.
type values map[string]float64

func (v values) on(name string) bool { return v[name] != 0 }

func (v values) count(name string) int { return int(v[name]) }

// builtin is a policy with what makes it; one of the four is set, or none for "none".
type builtin struct {
	Description
	order  func(values) Order
	choice func(values) Choice
	match  func(values) Matchmaker
	copies func(values) *Replicator
}

const (
	minute = 60.0
	hour   = 60 * minute
	day    = 24 * hour
	year   = 365 * day
)

// The parameters that several policies have.
var (
	ageing     = Parameter{"age", "the wait that is worth one step of priority; 0 is that waiting is worth nothing", hour, 0, 30 * day, Duration}
	decaying   = Parameter{"halfLife", "the time after which use counts half", 7 * day, minute, year, Duration}
	patience   = Parameter{"patience", "a job without a deadline goes as if it had one so long after its submission; 0 is that it goes behind all that have one", 0, 0, year, Duration}
	soft       = Parameter{"soft", "weight of soft criteria that are not met, each twentieth of them", 10, 0, 1000, Number}
	weighLoad  = Parameter{"load", "weight of the part of the place that is in use", 1, 0, 1000, Number}
	weighWait  = Parameter{"wait", "weight of the estimated wait", 1, 0, 1000, Number}
	weighPrice = Parameter{"price", "weight of the price", 0, 0, 1000, Number}
	weighData  = Parameter{"data", "weight of the distance of the data", 1, 0, 1000, Number}
	weighSpeed = Parameter{"speed", "weight of being slower than the others", 1, 0, 1000, Number}
	weighLoss  = Parameter{"failure", "weight of the part of jobs that failed there lately", 1, 0, 1000, Number}
)

// catalogue has the policies by kind, the default of each kind first.
var catalogue = []builtin{
	{
		Description: Description{"fifo", Scheduling, "Jobs go in the order in which they were submitted.", nil},
		order:       func(values) Order { return fifo{} },
	},
	{
		Description: Description{
			"priority", Scheduling, "A user's jobs go by priority, which waiting raises; the user goes first who used the least for the share, of whatever VO. What was used long ago counts less.",
			[]Parameter{ageing, decaying},
		},
		order: func(v values) Order {
			return &fairShare{halfLife: seconds(v["halfLife"]), users: true, within: byPriority{v["age"]}}
		},
	},
	{
		Description: Description{
			"edf", Scheduling, "The job whose deadline is the earliest goes first; those without one go behind, the oldest first.",
			[]Parameter{patience},
		},
		order: func(v values) Order { return byDeadline{patience: v["patience"]} },
	},
	{
		Description: Description{
			"realtime", Scheduling, "The job with the least slack goes first: what is left until its deadline, less its estimated length (REALTIME of eNANOS); those without a deadline go behind, the oldest first.",
			[]Parameter{{"length", "the estimate where a job has none", hour, 0, year, Duration}, patience},
		},
		order: func(v values) Order { return byDeadline{slack: true, length: v["length"], patience: v["patience"]} },
	},
	{
		Description: Description{
			"fairshare", Scheduling, "The VO goes first that used the least for its share, and in it the user who did; what was used long ago counts less. A user's own jobs go by priority, which waiting raises.",
			[]Parameter{
				decaying,
				{"users", "compare the users of a VO, too; off takes a VO's jobs as those of one", 1, 0, 1, Switch},
				ageing,
			},
		},
		order: func(v values) Order {
			return &fairShare{seconds(v["halfLife"]), true, v.on("users"), byPriority{v["age"]}}
		},
	},

	{
		Description: Description{"least-loaded", Selection, "The place with the most free slots; where none is free, the one with the smallest load for each slot.", nil},
		choice:      func(values) Choice { return leastLoaded },
	},
	{
		Description: Description{"first-fit", Selection, "The first place of the configuration that could start the job now; where none could, the first.", nil},
		choice:      func(values) Choice { return firstFit },
	},
	{
		Description: Description{
			"best-fit", Selection, "The place where the least is left free beside the job, so that large jobs find room elsewhere; those that could not start it now go behind.",
			[]Parameter{
				{"cpu", "weight of a CPU that is left", 1, 0, 1000, Number},
				{"memory", "weight of a GiB of memory that is left", 0.25, 0, 1000, Number},
				{"gpu", "weight of a GPU that is left", 16, 0, 1000, Number},
			},
		},
		choice: func(v values) Choice { return bestFit(v["cpu"], v["memory"], v["gpu"]) },
	},
	{
		Description: Description{
			"earliest-start", Selection, "The place where the job is estimated to start first.",
			[]Parameter{
				{"unknown", "the wait where nothing is free and nobody knows", day, 0, year, Duration},
				{"finish", "compare when the job would end, by the measured speed of the place, rather than when it would start", 0, 0, 1, Switch},
			},
		},
		choice: func(v values) Choice { return earliestStart(v["unknown"], v.on("finish")) },
	},
	{
		Description: Description{
			"data-affinity", Selection, "The place that lies nearest to the data that the job names; of those that are alike, the least loaded.",
			[]Parameter{{"unknown", "the distance where nobody knows", 1000, 0, 1e9, Number}},
		},
		choice: func(v values) Choice { return dataAffinity(v["unknown"]) },
	},
	{
		Description: Description{
			"cheapest", Selection, "The place with the lowest price of a CPU-hour; of those that are alike, the least loaded.",
			[]Parameter{{"speed", "reckon that a place twice as fast, as measured, needs half the CPU-hours", 0, 0, 1, Switch}},
		},
		choice: func(v values) Choice { return cheapest(v.on("speed")) },
	},
	{
		Description: Description{
			"best-broker", Selection, "A weighted mean of what aggregates tell and what was measured: room, estimated wait, speed and success.",
			[]Parameter{
				{"room", "weight of the jobs like this one that could start at once", 1, 0, 1000, Number},
				{"wait", "weight of the estimated wait", 1, 0, 1000, Number},
				{"speed", "weight of the measured speed", 1, 0, 1000, Number},
				{"success", "weight of the part of recent jobs that ran to their end", 1, 0, 1000, Number},
				{"doubt", "the part of a mark for room and wait that is taken off for each step of coarser detail", 0.1, 0, 0.3, Number},
				{"scale", "the wait that is worth half a mark", hour, 1, 30 * day, Duration},
			},
		},
		choice: func(v values) Choice {
			return bestBroker{room: v["room"], wait: v["wait"], speed: v["speed"], success: v["success"], doubt: v["doubt"], scale: v["scale"]}.choice()
		},
	},

	{Description: Description{"none", Pairing, "Jobs are placed one by one, as scheduling and selection say.", nil}},
	{
		Description: Description{
			"assignment", Pairing, "Of all ways to place the jobs of a round, the one with the least cost; no job gives up its place to one behind it.",
			[]Parameter{
				soft, weighLoad, weighWait, weighPrice, weighData, weighSpeed, weighLoss,
				{"chunk", "jobs that are solved together; the next are placed in what these leave", 128, 1, 1000, Count},
			},
		},
		match: func(v values) Matchmaker { return &assignment{judgeOf(v), v.count("chunk")} },
	},
	{
		Description: Description{
			"genetic", Pairing, "A genetic search for a cheap and even way to place the jobs of a round, from the greedy one on, which it is never worse than.",
			[]Parameter{
				soft, weighLoad, weighWait, weighPrice, weighData, weighSpeed, weighLoss,
				{"balance", "weight of filling places evenly", 1, 0, 1000, Number},
				{"population", "ways that are kept", 32, 4, 500, Count},
				{"generations", "rounds of the search", 60, 1, 1000, Count},
				{"mutation", "probability that a job of a new way is placed anew by chance", 0.03, 0, 1, Number},
				{"crossover", "probability that a new way has two parents rather than one", 0.9, 0, 1, Number},
				{"chunk", "jobs that are searched for together", 256, 1, 1000, Count},
			},
		},
		match: func(v values) Matchmaker {
			return &genetic{
				judge: judgeOf(v), balance: v["balance"], population: v.count("population"), generations: v.count("generations"),
				mutation: v["mutation"], crossover: v["crossover"], chunk: v.count("chunk"),
			}
		},
	},

	{Description: Description{"none", Replication, "No job gets further copies.", nil}},
	{
		Description: Description{
			"wqr", Replication, "Work queue with replication: once no job of a bag waits, those that still run get copies on idle places; the first valid result wins.",
			[]Parameter{
				{"copies", "of a job that may run at once, the first among them", 2, 2, 16, Count},
				{"waste", "CPU time that copies may cost in vain, as a part of what the bag needs without them", 0.25, 0, 10, Number},
				{"late", "only jobs that have run so many times their expected length", 0, 0, 100, Number},
				{"length", "the expected length where neither the job nor the bag tells", hour, 1, year, Duration},
			},
		},
		copies: func(v values) *Replicator {
			return &Replicator{Copies: v.count("copies"), Waste: v["waste"], Late: v["late"], Length: seconds(v["length"])}
		},
	},
}

// Catalogue lists the policies there are, by kind, the default of each kind first. The
// caller may change the list.
func Catalogue() []Description {
	out := make([]Description, len(catalogue))
	for i := range catalogue {
		out[i] = catalogue[i].Description
		out[i].Parameters = slices.Clone(out[i].Parameters)
	}
	return out
}

// Find gives the description of a policy; nil if there is none. It is not to be changed.
func Find(k Kind, name string) *Description {
	if b := find(k, name); b != nil {
		return &b.Description
	}
	return nil
}

func find(k Kind, name string) *builtin {
	for i := range catalogue {
		if catalogue[i].Kind == k && catalogue[i].Name == name {
			return &catalogue[i]
		}
	}
	return nil
}

// Default is what is in force where nobody set anything.
func Default(k Kind) Setting {
	for i := range catalogue {
		if catalogue[i].Kind == k {
			return Setting{Name: catalogue[i].Name}
		}
	}
	return Setting{}
}

// prepare gives what makes a built-in policy, and its values.
func prepare(op string, k Kind, s Setting) (*builtin, values, error) {
	if err := s.Check(k); err != nil {
		return nil, nil, err
	}
	b := find(k, s.Name)
	if b == nil {
		return nil, nil, fail.Errorf(op, fail.Unsupported, clip(s.Name), "%s is a plug-in that this gateway does not have; its configuration names those that it has", clip(s.Name))
	}
	return b, s.Complete(k).Parameters, nil
}

// NewOrder makes a scheduling policy: fail.Unsupported is that there is none of the name
// among the built-in ones, fail.Invalid a parameter.
func NewOrder(s Setting) (Order, error) {
	b, v, err := prepare("policy.NewOrder", Scheduling, s)
	if err != nil {
		return nil, err
	}
	return b.order(v), nil
}

// NewChoice makes a selection policy; its errors are as NewOrder's.
func NewChoice(s Setting) (Choice, error) {
	b, v, err := prepare("policy.NewChoice", Selection, s)
	if err != nil {
		return nil, err
	}
	return b.choice(v), nil
}

// NewMatchmaker makes a pairing policy; nil, nil is that jobs are not paired ("none").
// Its errors are as NewOrder's.
func NewMatchmaker(s Setting) (Matchmaker, error) {
	b, v, err := prepare("policy.NewMatchmaker", Pairing, s)
	if err != nil || b.match == nil {
		return nil, err
	}
	return b.match(v), nil
}

// NewReplication makes the parameters of Replicas; nil, nil is that no job gets copies
// ("none"). Its errors are as NewOrder's.
func NewReplication(s Setting) (*Replicator, error) {
	b, v, err := prepare("policy.NewReplication", Replication, s)
	if err != nil || b.copies == nil {
		return nil, err
	}
	return b.copies(v), nil
}

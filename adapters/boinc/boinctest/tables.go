package boinctest

// The rows of the project's database, as far as its interface shows them.

// Batch states.
const (
	BatchInit = iota
	BatchInProgress
	BatchComplete
	BatchAborted
	BatchRetired
)

// Bits of Workunit.ErrorMask.
const (
	ErrorCouldntSend = 1 << iota
	ErrorTooManyErrors
	ErrorTooManySuccesses
	ErrorTooManyTotal
	ErrorCancelled
	ErrorNoCanonical
)

var errorNames = []string{
	"couldnt_send_result", "too_many_error_results", "too_many_success_results", "too_many_total_results", "cancelled", "no_canonical_result",
}

// Result.ServerState.
const (
	ServerInactive   = 1
	ServerUnsent     = 2
	ServerInProgress = 4
	ServerOver       = 5
)

// Result.Outcome.
const (
	OutcomeNone = iota
	OutcomeSuccess
	OutcomeCouldntSend
	OutcomeClientError
	OutcomeNoReply
	OutcomeDidntNeed
	OutcomeValidateError
	OutcomeDetached
)

// Result.ValidateState.
const (
	ValidateInit = iota
	ValidateValid
	ValidateInvalid
	ValidateNoCheck
	ValidateInconclusive
	ValidateTooLate
)

// Result.ClientState.
const (
	ClientNew = iota
	ClientDownloading
	ClientDownloaded
	ClientComputeError
	ClientUploading
	ClientUploaded
	ClientAborted
	ClientUploadFailed
)

// User is an account.
type User struct {
	ID            int64
	Name          string
	Email         string
	PasswdHash    string // MD5 of password and e-mail
	Authenticator string
	// Permission rows. Submit is user_submit, Apps user_submit_app.
	Submit     bool
	SubmitAll  bool
	ManageAll  bool
	MaxJobs    int
	Apps       []string
	AvgCredit  float64 // expavg_credit: their sum is the project's speed
	LogicalNow float64 // logical_start_time
}

// App is an application that the staff installed.
type App struct {
	ID             int64
	Name           string
	InputTemplate  string // "" for an application whose jobs bring their own
	OutputTemplate string
	Versions       []AppVersion
	Collect        bool // its assimilator collects outputs under results/
	Program        Program
}

// AppVersion is one version for one platform.
type AppVersion struct {
	Number   int // 100 is 1.00
	Platform string
}

// Batch is a set of jobs.
type Batch struct {
	ID              int64
	User            int64
	CreateTime      int64
	ExpireTime      int64
	NJobs           int
	NErrors         int
	FractionDone    float64
	State           int
	CompletionTime  int64
	CreditEstimate  float64
	CreditCanonical float64
	Name            string
	App             int64
}

// Input is an input file of a job.
type Input struct {
	OpenName string `json:",omitempty"`
	Name     string // physical
	URL      string
	MD5      string
	Size     int64
	NoDelete bool `json:",omitempty"`
	CopyFile bool `json:",omitempty"`
	Remote   bool `json:",omitempty"`
}

// Output is an output file that a job's template names.
type Output struct {
	OpenName string
	MaxBytes float64 `json:",omitempty"`
	Optional bool    `json:",omitempty"`
	CopyFile bool    `json:",omitempty"`
}

// Limits are the numbers of a workunit that templates and job_params set.
type Limits struct {
	FpopsEst, FpopsBound, MemoryBound, DiskBound float64
	DelayBound                                   int64
	MinQuorum, TargetResults                     int
	MaxErrors, MaxTotal, MaxSuccess              int
	SizeClass                                    int
}

// Workunit is a job.
type Workunit struct {
	ID          int64
	CreateTime  int64
	App         int64
	Name        string
	Batch       int64
	CommandLine string
	Inputs      []Input
	Outputs     []Output
	Template    string // name of the output template
	Limits      Limits
	Priority    int
	VersionNum  int
	TargetHost  int64
	TargetUser  int64
	TargetTeam  int64
	Canonical   int64
	Credit      float64
	ErrorMask   int
	ModTime     int64
	Assimilated bool
}

// Result is one sending of a job to a host.
type Result struct {
	ID            int64
	Name          string
	Workunit      int64
	ServerState   int
	Outcome       int
	ClientState   int
	ValidateState int
	ExitStatus    int
	Host          int64
	SentTime      int64
	Deadline      int64
	ReceivedTime  int64
	CPUTime       float64
	ElapsedTime   float64
	Stderr        string // stderr_out
	Credit        float64
	Random        int64
	Files         []OutputFile // that the client reported
}

// OutputFile is an output that a client uploaded.
type OutputFile struct {
	Index int // in the output template
	Name  string
	Size  int64
	Moved bool // into results/
}

// JobFile is a row of job_file.
type JobFile struct {
	Name       string
	MD5        string
	Size       int64
	DeleteTime int64
}

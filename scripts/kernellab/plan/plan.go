// Package plan is what the laboratory's two sides say to each other: the machine
// that starts a kernel hands over a [Plan], and the program that is that kernel's
// init answers with a [Record] a check.
package plan

// Marker stands before each record on the console; the rest of its line is
// its JSON. Everything else there is the kernel's or a program's.
const Marker = "LAB: "

// File is where the plan stands in the initramfs, which holds all files that the
// plan names outside the root file system.
const File = "/plan.json"

// A Plan is one boot.
type Plan struct {
	// Modules are loaded in this order, by their names in the initramfs.
	Modules []string `json:"modules,omitempty"`
	// Device holds the root file system, an ext4; it is mounted before the keys are
	// loaded, and each Check that runs a program runs it there.
	Device string `json:"device"`
	// Keyring takes the keys: ".ima", which the kernel made, or "_ima", which is made.
	Keyring string `json:"keyring"`
	// Keys are loaded before the policy, each a check of its own.
	Keys []Key `json:"keys"`
	// Policy is the text of an IMA policy.
	Policy string  `json:"policy"`
	Checks []Check `json:"checks"`
	// Shell asks for a shell on the console when the checks are done.
	Shell bool `json:"shell,omitempty"`
}

// A Key is a certificate, by its name in the initramfs.
type Key struct {
	ID     string `json:"id"`
	File   string `json:"file"`
	Expect string `json:"expect"`
}

// Verdicts of the kernel, in Expect and in a Record's Seen. Anything else is a
// failure that is no verdict, in words.
const (
	Allowed = "allowed"
	Denied  = "denied"
)

// A Check is one thing that is tried under the policy: Run, Map with or without
// Labels, Module, Measure, MapSigned or Key is set.
type Check struct {
	ID string `json:"id"`
	// Case is the number of the table in docs/verification.md to which it belongs.
	Case   int    `json:"case"`
	Expect string `json:"expect"`
	// Run is a program and its arguments, in the root file system. It is allowed
	// when it ends with status 0; denied when it can't be executed or, where
	// Needs is set, its output holds that text.
	Run   []string `json:"run,omitempty"`
	Needs string   `json:"needs,omitempty"`
	// Tell says that the last line of the output is for a person to read.
	Tell bool `json:"tell,omitempty"`
	// Map is a file that is mapped to be executed, as ld.so maps a library.
	Map string `json:"map,omitempty"`
	// Module is a kernel module in the root file system, which is loaded.
	Module string `json:"module,omitempty"`
	// Measure is how many of the packages' files are mapped to be executed, after
	// which the measurement list must have each of them, with the very signature
	// that its package carries.
	Measure int `json:"measure,omitempty"`
	// MapSigned is how many of the packages' files are mapped to be executed; all of
	// them must be allowed.
	MapSigned int `json:"map_signed,omitempty"`
	// Key changes a keyring.
	Key *KeyChange `json:"key,omitempty"`
	// Labels are set on the file Map one after the other, and each is judged alone.
	Labels []Label `json:"labels,omitempty"`
}

// A KeyChange loads a key into a keyring, mostly a certificate, or takes one out of it.
// It is denied when the kernel does not want it.
type KeyChange struct {
	Keyring string `json:"keyring"`
	// Name is what the key is called in the keyring: the ID of a [Key] of the plan, or
	// what it was loaded as.
	Name string `json:"name"`
	// Type is the kernel's for what File holds; "" is that of certificates.
	Type string `json:"type,omitempty"`
	// File is what is loaded, by its name in the initramfs.
	File   string `json:"file,omitempty"`
	Unlink bool   `json:"unlink,omitempty"`
}

// A Label is a value of security.ima and the verdict that imaseal gives.
type Label struct {
	ID     string `json:"id"`
	Value  []byte `json:"value"`
	Expect string `json:"expect"`
}

// A Record is what was seen.
type Record struct {
	Kernel string `json:"kernel"`
	Case   int    `json:"case"`
	ID     string `json:"id"`
	Expect string `json:"expected"`
	Seen   string `json:"seen"`
	// Audit holds the lines of the kernel's integrity audit since the last record.
	Audit []string `json:"audit,omitempty"`
	// Output is the end of what the program wrote.
	Output string `json:"output,omitempty"`
	Micros int64  `json:"microseconds,omitempty"`
	// Told is what a person should read of the output.
	Told string `json:"told,omitempty"`
}

// OK reports whether the kernel did what was expected.
func (r Record) OK() bool { return r.Seen == r.Expect }

// Records returns how many records a plan that is carried out to its end gives.
func (p *Plan) Records() int {
	n := len(p.Keys)
	for _, c := range p.Checks {
		n += max(1, len(c.Labels))
	}
	return n
}

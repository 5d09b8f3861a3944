package installed

// A Finding is what is worth telling about one file, or about a package.
type Finding struct {
	// Package is the one that owns the file, "libc6:amd64"; empty for none.
	Package string
	// Path is absolute; empty when the finding is about the package itself.
	Path   string
	Kind   Kind
	Detail string
}

// A Kind is what was found, in the words of the command's output.
type Kind string

// The kinds, by severity.
const (
	// What an attacker or a broken disk does.
	KindWrongName    Kind = "wrong name"         // validly signed, but another file of a package
	KindForeign      Kind = "foreign file"       // validly signed, but of no installed package
	KindMismatch     Kind = "digest mismatch"    // the content is not what its signature is over
	KindBadSignature Kind = "bad signature"      // the content is right, its label does not hold
	KindNotRegular   Kind = "not a regular file" // a link or the like stands in its place
	KindStatement    Kind = "bad statement"      // the info database is not what was signed
	KindMalformed    Kind = "malformed"          // the signatures in the database can't be used
	KindUnsigned     Kind = "unsigned script"    // a maintainer script that no signature is for
	KindUnlabelled   Kind = "no label"           // signed in the package, but not on the disk
	KindMissing      Kind = "missing"            // not there
	KindUnknownKey   Kind = "unknown key ID"     // signed by a key that is not trusted
	KindUnjudged     Kind = "not judged"         // nothing to compare the content with
	KindKept         Kind = "other label"        // carries a label that was left alone
	KindExtra        Kind = "extra label"        // a label that does not hold, on a file that no package signs
	KindStale        Kind = "conffile locked"    // edited, and its label no longer holds
	KindTaken        Kind = "taken over"         // signed by one package, now another's that does not
	KindUnowned      Kind = "unowned"            // an executable file of no package, without a signature
	KindRevoked      Kind = "revoked key"        // signed by a key that is, or is going to be, revoked
	KindChanging     Kind = "changed meanwhile"  // written while it was looked at
	KindError        Kind = "error"              // something could not be done
	KindEdited       Kind = "conffile edited"    // as an administrator may
	KindDeleted      Kind = "conffile deleted"   // likewise
	KindOtherKey     Kind = "other key"          // another trusted key signed the same content
	KindLocal        Kind = "local signature"    // a trusted key signed what no package signs
	KindUnsupported  Kind = "no label possible"  // right, on a file system that takes no labels
)

// A Severity says how bad a finding is.
type Severity int

// The severities in ascending order.
const (
	Notice   Severity = iota // as it may be
	Problem                  // not as it should be: the kernel may refuse the file
	Critical                 // not what was signed
	Failure                  // could not be looked at or done
)

var severities = map[Kind]Severity{
	KindWrongName: Critical, KindForeign: Critical, KindMismatch: Critical, KindBadSignature: Critical,
	KindNotRegular: Critical, KindStatement: Critical, KindMalformed: Critical, KindUnsigned: Critical,
	KindError:  Failure,
	KindEdited: Notice, KindDeleted: Notice, KindOtherKey: Notice, KindLocal: Notice,
	KindUnsupported: Notice,
}

// Severity returns how bad a finding of this kind is.
func (k Kind) Severity() Severity {
	if s, ok := severities[k]; ok {
		return s
	}
	return Problem
}

// String returns the severity as the command prints it.
func (s Severity) String() string {
	return [...]string{"notice", "problem", "critical", "error"}[s]
}

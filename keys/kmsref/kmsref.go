// Package kmsref reads the references of keys in the clouds' key management services,
// in the spelling that cosign made common. It is the one place that knows it: the
// command checks a reference by it before it starts a program, and the programs find
// in it what to ask the service for.
//
//	awskms:///KEY, awskms://ENDPOINT/KEY        KEY: an id, alias/NAME, or the ARN of either
//	gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K[/cryptoKeyVersions/N]
//	azurekms://NAME.vault.azure.net/KEY[/VERSION]
package kmsref

import (
	"fmt"
	"regexp"
	"strings"
)

// maxReference bounds a reference in bytes; the longest real ones have some 300.
const maxReference = 2048

// An AWSKey is a key in AWS KMS.
type AWSKey struct {
	// Endpoint is the host, or host:port, of a service that is not the region's own;
	// "" for that one.
	Endpoint string
	// ID is what the API calls KeyId: an id, an alias/NAME, or the ARN of either.
	ID string
	// Region is the one that an ARN names, "" where ID is none.
	Region string
}

// A GCPKey is a key in Google Cloud KMS.
type GCPKey struct {
	// Key is the resource name, projects/…/cryptoKeys/K.
	Key string
	// Version is its number, "" where the reference leaves it out: then it is the
	// newest one that is enabled.
	Version string
}

// VersionName returns the resource name of a version of the key.
func (k GCPKey) VersionName(version string) string { return k.Key + "/cryptoKeyVersions/" + version }

// An AzureKey is a key in Azure Key Vault or Managed HSM.
type AzureKey struct {
	// Host is that of the vault: NAME.vault.azure.net, or that of another cloud.
	Host string
	Name string
	// Version is "" where the reference leaves it out: then it is the current one.
	Version string
}

// URL returns the address of the vault.
func (k AzureKey) URL() string { return "https://" + k.Host + "/" }

const (
	uuid = `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`
	// A multi-Region key's id has mrk- in front of 32 digits.
	awsID    = `(?:` + uuid + `|mrk-[0-9a-f]{32})`
	awsAlias = `alias/[A-Za-z0-9/_-]{1,250}`
	host     = `[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?`
	// Resource ids of Google Cloud; a project of a domain has a colon.
	gcpName    = `[A-Za-z0-9_-]{1,63}`
	gcpProject = `[a-z0-9][a-z0-9.:-]{0,99}`
)

var (
	awsReference = regexp.MustCompile(`^awskms://(` + host + `(?::[0-9]{1,5})?)?/(` + awsID + `|` + awsAlias +
		`|arn:[a-z0-9-]{3,20}:kms:([a-z0-9-]{1,40}):[0-9]{12}:(?:key/` + awsID + `|` + awsAlias + `))$`)
	gcpReference = regexp.MustCompile(`^gcpkms://(projects/` + gcpProject + `/locations/` + gcpName + `/keyRings/` + gcpName +
		`/cryptoKeys/` + gcpName + `)(?:/(?:cryptoKeyVersions|versions)/([1-9][0-9]{0,8}))?$`)
	azureReference = regexp.MustCompile(`^azurekms://(` + host + `(?::[0-9]{1,5})?)/([A-Za-z0-9-]{1,127})(?:/([0-9a-f]{32}))?$`)
)

// ParseAWS reads an awskms reference.
func ParseAWS(ref string) (AWSKey, error) {
	m := match(awsReference, ref)
	if m == nil {
		return AWSKey{}, wrong(ref, "awskms:///KEY or awskms://HOST/KEY, where KEY is a key id, alias/NAME or an ARN")
	}
	return AWSKey{Endpoint: m[1], ID: m[2], Region: m[3]}, nil
}

// ParseGCP reads a gcpkms reference.
func ParseGCP(ref string) (GCPKey, error) {
	m := match(gcpReference, ref)
	if m == nil {
		return GCPKey{}, wrong(ref, "gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY, and /cryptoKeyVersions/N for one version of it")
	}
	return GCPKey{Key: m[1], Version: m[2]}, nil
}

// ParseAzure reads an azurekms reference.
func ParseAzure(ref string) (AzureKey, error) {
	m := match(azureReference, ref)
	if m == nil {
		return AzureKey{}, wrong(ref, "azurekms://VAULT.vault.azure.net/KEY, and /VERSION of 32 hexadecimal digits for one version of it")
	}
	return AzureKey{Host: m[1], Name: m[2], Version: m[3]}, nil
}

// Check reports whether ref is a well-formed reference of one of the three schemes.
func Check(ref string) error {
	name, _, _ := strings.Cut(ref, ":")
	var err error
	switch name {
	case "awskms":
		_, err = ParseAWS(ref)
	case "gcpkms":
		_, err = ParseGCP(ref)
	case "azurekms":
		_, err = ParseAzure(ref)
	default:
		err = wrong(ref, "awskms://, gcpkms:// or azurekms://")
	}
	return err
}

func match(re *regexp.Regexp, ref string) []string {
	if len(ref) > maxReference {
		return nil
	}
	return re.FindStringSubmatch(ref)
}

func wrong(ref, want string) error {
	if len(ref) > 200 {
		ref = ref[:200] + "…"
	}
	return fmt.Errorf("key %q: it should read %s", ref, want)
}

package kmsref

import (
	"strings"
	"testing"
)

const (
	id  = "1234abcd-12ab-34cd-56ef-1234567890ab"
	arn = "arn:aws:kms:eu-central-1:111122223333:"
	key = "projects/my-project/locations/global/keyRings/ring/cryptoKeys/release_key"
)

func TestParseAWS(t *testing.T) {
	for ref, want := range map[string]AWSKey{
		"awskms:///" + id: {ID: id},
		"awskms:///mrk-1234abcd12ab34cd56ef1234567890ab":        {ID: "mrk-1234abcd12ab34cd56ef1234567890ab"},
		"awskms:///alias/release/2026":                          {ID: "alias/release/2026"},
		"awskms://localhost:4566/" + id:                         {Endpoint: "localhost:4566", ID: id},
		"awskms:///" + arn + "key/" + id:                        {ID: arn + "key/" + id, Region: "eu-central-1"},
		"awskms://kms.example/" + arn + "alias/x":               {Endpoint: "kms.example", ID: arn + "alias/x", Region: "eu-central-1"},
		"awskms:///arn:aws-us-gov:kms:r:000000000000:key/" + id: {ID: "arn:aws-us-gov:kms:r:000000000000:key/" + id, Region: "r"},
	} {
		if got, err := ParseAWS(ref); err != nil || got != want {
			t.Errorf("%s: %+v, %v", ref, got, err)
		}
	}
}

func TestParseGCP(t *testing.T) {
	for ref, want := range map[string]GCPKey{
		"gcpkms://" + key: {Key: key},
		"gcpkms://" + key + "/cryptoKeyVersions/12":                                      {Key: key, Version: "12"},
		"gcpkms://" + key + "/versions/1":                                                {Key: key, Version: "1"},
		"gcpkms://projects/example.com:p/locations/europe-west3/keyRings/r/cryptoKeys/k": {Key: "projects/example.com:p/locations/europe-west3/keyRings/r/cryptoKeys/k"},
	} {
		if got, err := ParseGCP(ref); err != nil || got != want {
			t.Errorf("%s: %+v, %v", ref, got, err)
		}
	}
	if got := (GCPKey{Key: key}).VersionName("3"); got != key+"/cryptoKeyVersions/3" {
		t.Errorf("the name of a version is %s", got)
	}
}

func TestParseAzure(t *testing.T) {
	version := strings.Repeat("0a", 16)
	for ref, want := range map[string]AzureKey{
		"azurekms://team.vault.azure.net/release":            {Host: "team.vault.azure.net", Name: "release"},
		"azurekms://team.vault.azure.net/release/" + version: {Host: "team.vault.azure.net", Name: "release", Version: version},
		"azurekms://127.0.0.1:8443/k":                        {Host: "127.0.0.1:8443", Name: "k"},
	} {
		if got, err := ParseAzure(ref); err != nil || got != want {
			t.Errorf("%s: %+v, %v", ref, got, err)
		}
	}
	if got := (AzureKey{Host: "h"}).URL(); got != "https://h/" {
		t.Errorf("the address is %s", got)
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, ref := range []string{
		"", "awskms", "awskms:", "awskms://", "awskms:///", "awskms://" + id, "awskms:///alias/", "awskms:////" + id,
		"awskms:///" + strings.ToUpper(id), "awskms:///" + id + "/", "awskms:///" + id + "?x", "awskms:///" + id + "\n",
		"awskms://user@host/" + id, "awskms://-x/" + id, "awskms:///arn:aws:kms:eu:1:key/" + id,
		"gcpkms://", "gcpkms:///" + key, "gcpkms://" + key + "/", "gcpkms://" + key + "/versions/0", "gcpkms://" + key + "/versions/x",
		"gcpkms://projects/../locations/l/keyRings/r/cryptoKeys/k", "gcpkms://projects/p/locations/l/keyRings/r",
		"azurekms://", "azurekms:///k", "azurekms://h", "azurekms://h/", "azurekms://h/k/", "azurekms://h/k/v", "azurekms://h/k\x00", "azurekms://h/../k",
		"awskms:///alias/" + strings.Repeat("x", 4000),
	} {
		err := Check(ref)
		if err == nil {
			t.Errorf("%q was taken", ref)
			continue
		}
		if text := err.Error(); strings.ContainsAny(text, "\n\x00") || len(text) > 600 {
			t.Errorf("%q: the message is no line: %q", ref, text)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, ref := range []string{"awskms:///" + id, "awskms://h:1/" + arn + "alias/a", "gcpkms://" + key + "/versions/1", "azurekms://h/k"} {
		f.Add(ref)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		if Check(ref) != nil {
			return
		}
		if strings.ContainsAny(ref, " \t\r\n\x00@?#%\\'\"`$") || strings.Contains(ref, "/../") {
			t.Errorf("%q was taken", ref)
		}
	})
}

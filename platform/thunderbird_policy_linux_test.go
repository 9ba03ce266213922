package platform

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestThunderbirdPolicies: what an administrator locks in Thunderbird's own
// policy file counts as set, and is not fought with; what is only a default is.
func TestThunderbirdPolicies(t *testing.T) {
	if _, err := os.Stat(systemPolicies); err == nil {
		t.Skipf("SKIP: this machine has %s", systemPolicies)
	}
	const sign, encrypt = "mail.identity.id1.sign_mail", "mail.identity.id1.encryptionpolicy"
	for name, c := range map[string]struct {
		policies string
		want     Switch // of signing by default, where On is wanted
		managed  bool
	}{
		"none":               {``, On, false},
		"no policy file":     {`{`, On, false},
		"of something else":  {`{"policies": {"Preferences": {"mail.server.default.x": {"Value": false, "Status": "locked"}}}}`, On, false},
		"locked otherwise":   {`{"policies": {"Preferences": {"` + sign + `": {"Value": false, "Status": "locked"}}}}`, Off, true},
		"locked as a number": {`{"policies": {"Preferences": {"` + sign + `": {"Value": 0, "Status": "locked"}}}}`, Off, true},
		"the older form":     {`{"policies": {"Preferences": {"` + sign + `": false}}}`, Off, true},
		"set at each start":  {`{"policies": {"Preferences": {"` + sign + `": {"Value": false, "Status": "user"}}}}`, Off, true},
		"cleared":            {`{"policies": {"Preferences": {"` + sign + `": {"Status": "clear"}}}}`, Off, true},
		"locked as wanted":   {`{"policies": {"Preferences": {"` + sign + `": {"Value": true, "Status": "locked"}}}}`, On, false},
		"only a default":     {`{"policies": {"Preferences": {"` + sign + `": {"Value": false}}}}`, On, false},
		"the default encrypts": {`{"policies": {"Preferences": {"` + encrypt + `": {"Value": 2, "Status": "default"}}}}`,
			On, false},
	} {
		t.Run(name, func(t *testing.T) {
			root, profile := t.TempDir(), t.TempDir()
			folder := filepath.Dir(distributed(root))
			prefs := filepath.Join(profile, prefsName)
			before := []byte("user_pref(\"mail.identity.id1.useremail\", \"ann@corp.example\");\n")
			for path, data := range map[string][]byte{distributed(root): []byte(c.policies), prefs: before} {
				if err := errors.Join(os.MkdirAll(folder, 0o700), os.WriteFile(path, data, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			a := &thunderbirdAccount{
				profile:  thunderbirdProfile{dir: profile, store: "nss:x", of: thunderbird{libraries: []string{root}}},
				identity: "id1", mailbox: "ann@corp.example",
			}
			_, err := a.Apply(t.Context(), MailSettings{Sign: On, Encrypt: Off})
			if errors.Is(err, ErrManaged) != c.managed || err != nil && !c.managed {
				t.Fatal(err)
			}
			is, err := a.Settings(t.Context())
			if err != nil || is.Sign != c.want || is.Encrypt != Off {
				t.Errorf("%+v, %v", is, err)
			}
			after, err := os.ReadFile(prefs)
			if err != nil || c.managed && string(after) != string(before) {
				t.Errorf("managed, and yet written: %s, %v", after, err)
			}
		})
	}
}

package platform

import "testing"

func TestCurrentUserPaths(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want UserPaths
	}{
		{map[string]string{"HOME": "/h"}, UserPaths{"/h/.local/state/smime-agent", "/h/.local/state/smime-agent"}},
		{map[string]string{"HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/1"}, UserPaths{"/h/.local/state/smime-agent", "/run/user/1/smime-agent"}},
		{map[string]string{"HOME": "/h", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "relative"}, UserPaths{"/s/smime-agent", "/s/smime-agent"}},
	} {
		got, err := CurrentUserPaths(func(name string) string { return tt.env[name] })
		if err != nil || got != tt.want {
			t.Errorf("%v: %+v, %v", tt.env, got, err)
		}
	}
}

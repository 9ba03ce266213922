package platform

import "testing"

func TestFolded(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"short", "short"},
		{"one two three four", "one two\nthree four"},
		{"a\n\nb", "a\n\nb"},
		{"averyveryverylongword and more", "averyveryverylongword\nand more"},
		{"请输入密码以便设置", "请输入密码\n以便设置"},
		{"请输入密，码以便", "请输入密，\n码以便"},
		{"请输入密码，以便", "请输入密\n码，以便"},
		{"ten column s", "ten column\ns"},
	} {
		if got := folded(c.text, 10); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

package platform_test

const thunderbirdRoot = "Library/Thunderbird"

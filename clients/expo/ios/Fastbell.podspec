require 'json'

package = JSON.parse(File.read(File.join(__dir__, '..', 'package.json')))

Pod::Spec.new do |s|
  s.name           = 'Fastbell'
  s.version        = package['version']
  s.summary        = package['description']
  s.license        = package['license']
  s.author         = 'Fastbell'
  s.homepage       = 'https://example.com/fastbell'
  s.platforms      = { :ios => '16.4' }
  s.source         = { git: '' }
  s.static_framework = true
  s.dependency 'ExpoModulesCore'
  s.source_files   = '*.swift' # not service/: the config plugin copies that into the extension's target
  s.pod_target_xcconfig = { 'DEFINES_MODULE' => 'YES' }
end

// Tags a WAV file with an export: onnxruntime's C++ interface and nothing else.
//
//   g++ -std=c++17 -O2 tag.cpp -o tag -I ORT/include -L ORT/lib -lonnxruntime -Wl,-rpath,ORT/lib      ORT: an unpacked release of onnxruntime
//   ./tag EXPORT FILE       16-bit PCM at 16 kHz, any number of channels, some ten seconds at most

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

constexpr std::size_t RATE = 16000, MIN_SAMPLES = 3200, TOP = 5;

// A little-endian number in a file's bytes.
template <typename Number>
Number number_at(const std::string& bytes, std::size_t place) {
  if (place + sizeof(Number) > bytes.size()) throw std::runtime_error("the WAV file is cut short");
  Number number;
  std::memcpy(&number, bytes.data() + place, sizeof number);
  return number;
}

// The mean of the channels, in [-1, 1].
std::vector<float> read_wav(const std::string& name) {
  std::ifstream file(name, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  if (bytes.compare(0, 4, "RIFF") != 0 || bytes.compare(8, 4, "WAVE") != 0) throw std::runtime_error(name + " is not a WAV file");
  std::size_t channels = 0;
  for (std::size_t place = 12; place + 8 <= bytes.size();) {
    const std::string kind = bytes.substr(place, 4);
    const std::size_t size = number_at<std::uint32_t>(bytes, place + 4), begin = place + 8;
    if (kind == "fmt ") {
      channels = number_at<std::uint16_t>(bytes, begin + 2);
      const bool wanted = channels > 0 && number_at<std::uint32_t>(bytes, begin + 4) == RATE && number_at<std::uint16_t>(bytes, begin + 14) == 16;
      if (!wanted) throw std::runtime_error(name + " is not 16-bit PCM at 16 kHz");
    } else if (kind == "data" && channels > 0) {
      const std::size_t samples = std::min(size, bytes.size() - begin) / (2 * channels);
      std::vector<float> waveform(samples);
      for (std::size_t i = 0; i < samples * channels; ++i) waveform[i / channels] += number_at<std::int16_t>(bytes, begin + 2 * i) / (32768.0f * channels);
      return waveform;
    }
    place = begin + size + size % 2;
  }
  throw std::runtime_error(name + " holds no samples");
}

// The display names: what stands in quotes behind the last comma before them.
std::vector<std::string> read_labels(const std::string& name) {
  std::ifstream file(name);
  std::vector<std::string> names;
  std::string line;
  std::getline(file, line);  // index,mid,display_name
  while (std::getline(file, line)) {
    const std::size_t begin = line.find(",\"", line.find(',') + 1) + 2;
    names.push_back(line.substr(begin, line.size() - begin - 1));
  }
  return names;
}

int main(int count, char** words) try {
  if (count != 3) throw std::runtime_error("usage: tag EXPORT FILE");
  const std::string folder = words[1];
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // before the environment is made

  const std::vector<std::string> names = read_labels(folder + "/class_labels_indices.csv");
  std::vector<float> waveform = read_wav(words[2]);
  const std::size_t whole = waveform.size();
  if (whole == 0) throw std::runtime_error("the WAV file is empty");
  while (waveform.size() < MIN_SAMPLES)  // a clip shorter than this is repeated
    for (std::size_t i = 0; i < whole; ++i) waveform.push_back(waveform[i]);

  Ort::Env environment(ORT_LOGGING_LEVEL_WARNING);
  Ort::Session session(environment, (folder + "/model.onnx").c_str(), Ort::SessionOptions{});
  // A batch of one. Of several clips: zeros after each clip's end, and where that is in `lengths`.
  std::int64_t length = static_cast<std::int64_t>(waveform.size());
  const std::int64_t shape[] = {1, length}, batch[] = {1};
  const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  Ort::Value inputs[] = {Ort::Value::CreateTensor<float>(memory, waveform.data(), waveform.size(), shape, 2),
                         Ort::Value::CreateTensor<std::int64_t>(memory, &length, 1, batch, 1)};
  const char* input_names[] = {"waveforms", "lengths"};
  const char* output_names[] = {"scores"};
  const auto outputs = session.Run(Ort::RunOptions{}, input_names, inputs, 2, output_names, 1);
  const float* scores = outputs[0].GetTensorData<float>();

  std::vector<std::size_t> order(names.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  for (std::size_t i = 0; i < std::min(TOP, order.size()); ++i) std::printf("%.6f  %s\n", scores[order[i]], names[order[i]].c_str());
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "tag: %s\n", error.what());
  return 1;
}

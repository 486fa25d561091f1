// What the readers and writers of settings know about a field's type, without templates: a description of the
// type and the address of a value. Everybody else includes config.h (to describe settings) or config_io.h (to
// read and write them).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "blt/base/config.h"

namespace blt {

struct ConfigType;

// A value of a described type. Does not own it.
struct ConfigValue {
  const ConfigType* type;
  void* address;
};

struct ConfigField {
  std::string_view name;
  ConfigValue value;
  std::string_view help;
  Rule rule;
};

// Functions that a kind of type does not have are null.
struct ConfigType {
  enum class Kind { kBool, kInteger, kNumber, kText, kPath, kChoice, kSection, kOptional, kList, kVariant };
  Kind kind = Kind::kBool;

  // kChoice: the values' names; kVariant: the alternatives' kinds.
  std::vector<std::string_view> names;
  // kOptional, kList: the element's type; kVariant: one for each name.
  std::vector<const ConfigType*> inner;

  std::shared_ptr<void> (*make)() = nullptr;            // all: a default value
  void (*move)(void* to, void* from) = nullptr;         // all: move assignment
  std::vector<ConfigField> (*fields)(void*) = nullptr;  // kSection
  void (*validate)(const void*, Errors&) = nullptr;     // kSection, where it has rules of its own
  size_t (*chosen)(const void*) = nullptr;              // kChoice, kVariant: index into names
  void (*choose)(void*, size_t) = nullptr;              // kVariant: a new alternative with its defaults
  size_t (*count)(const void*) = nullptr;               // kOptional (0 or 1), kList
  void (*resize)(void*, size_t) = nullptr;              // kOptional, kList: keeps what stays
  void* (*element)(void*, size_t) = nullptr;            // kOptional, kList; kVariant: the alternative held
};

namespace config_detail {

template <class T>
struct Element : std::false_type {};
template <class T>
struct Element<std::optional<T>> : std::true_type {
  using Type = T;
  static constexpr ConfigType::Kind kKind = ConfigType::Kind::kOptional;
  static size_t count(const std::optional<T>& value) { return value.has_value(); }
  static void resize(std::optional<T>& value, size_t count) {
    if (count == 0) value.reset();
    if (count != 0 && !value) value.emplace();
  }
  static T& at(std::optional<T>& value, size_t) { return *value; }
};
template <class T>
struct Element<std::vector<T>> : std::true_type {
  static_assert(!std::is_same_v<T, bool>,
                "a list of bools has no elements with an address: use a list of an enum");
  using Type = T;
  static constexpr ConfigType::Kind kKind = ConfigType::Kind::kList;
  static size_t count(const std::vector<T>& value) { return value.size(); }
  static void resize(std::vector<T>& value, size_t count) { value.resize(count); }
  static T& at(std::vector<T>& value, size_t i) { return value[i]; }
};

template <class T>
const ConfigType& type_of();

template <class T>
struct Describe;

template <class T>
ConfigType describe_type() {
  using Kind = ConfigType::Kind;
  ConfigType type;
  type.make = [] { return std::shared_ptr<void>(std::make_shared<T>()); };
  type.move = [](void* to, void* from) { *static_cast<T*>(to) = std::move(*static_cast<T*>(from)); };
  if constexpr (std::is_same_v<T, bool>) {
    type.kind = Kind::kBool;
  } else if constexpr (std::is_same_v<T, int64_t>) {
    type.kind = Kind::kInteger;
  } else if constexpr (std::is_same_v<T, double>) {
    type.kind = Kind::kNumber;
  } else if constexpr (std::is_same_v<T, std::string>) {
    type.kind = Kind::kText;
  } else if constexpr (std::is_same_v<T, std::filesystem::path>) {
    type.kind = Kind::kPath;
  } else if constexpr (std::is_enum_v<T>) {
    type.kind = Kind::kChoice;
    for (const auto& [value, text] : EnumNames<T>::kValues) type.names.push_back(text);
    type.chosen = [](const void* address) {
      size_t i = 0;
      for (const auto& [value, text] : EnumNames<T>::kValues) {
        if (value == *static_cast<const T*>(address)) break;
        ++i;
      }
      return i;
    };
    type.choose = [](void* address, size_t i) { *static_cast<T*>(address) = EnumNames<T>::kValues[i].first; };
  } else if constexpr (Element<T>::value) {
    using Holder = Element<T>;
    type.kind = Holder::kKind;
    type.inner = {&type_of<typename Holder::Type>()};
    type.count = [](const void* address) { return Holder::count(*static_cast<const T*>(address)); };
    type.resize = [](void* address, size_t count) { Holder::resize(*static_cast<T*>(address), count); };
    type.element = [](void* address, size_t i) -> void* { return &Holder::at(*static_cast<T*>(address), i); };
  } else if constexpr (Section<T>) {
    type.kind = Kind::kSection;
    type.fields = [](void* address) {
      std::vector<ConfigField> list;
      auto visit = [&list]<class F>(std::string_view field, F& value, std::string_view help,
                                    const Rule& rule = {}) {
        list.push_back({field, {&type_of<F>(), &value}, help, rule});
      };
      T::fields(*static_cast<T*>(address), visit);
      return list;
    };
    if constexpr (requires(const T& section, Errors& errors) { section.validate(errors); })
      type.validate = [](const void* address, Errors& errors) {
        static_cast<const T*>(address)->validate(errors);
      };
  } else {
    Describe<T>::variant(type);  // a compile error here names a type that is no setting: see config.h
  }
  return type;
}

template <class... Ts>
struct Describe<std::variant<Ts...>> {
  using Variant = std::variant<Ts...>;
  static void variant(ConfigType& type) {
    type.kind = ConfigType::Kind::kVariant;
    type.names = {Ts::kKind...};
    type.inner = {&type_of<Ts>()...};
    type.chosen = [](const void* address) { return static_cast<const Variant*>(address)->index(); };
    type.choose = [](void* address, size_t i) {
      static constexpr void (*kEmplace[])(Variant&) = {
          [](Variant& value) { value.template emplace<Ts>(); }...};
      kEmplace[i](*static_cast<Variant*>(address));
    };
    type.element = [](void* address, size_t) {
      return std::visit([](auto& held) -> void* { return &held; }, *static_cast<Variant*>(address));
    };
  }
};

template <class T>
const ConfigType& type_of() {
  static const ConfigType type = describe_type<T>();
  return type;
}

}  // namespace config_detail

// The section as a value. A const section is only read: writers take it too.
template <Section S>
ConfigValue config_value(const S& section) {
  return {&config_detail::type_of<S>(), const_cast<S*>(&section)};
}

}  // namespace blt

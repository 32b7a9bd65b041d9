"""Word lists that are no facts: names, things, numbers in words, pieces of invented words."""

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
).split()
TENS = dict(zip(range(20, 100, 10), "twenty thirty forty fifty sixty seventy eighty ninety".split()))
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November December").split()
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
SEASONS = "spring summer autumn winter".split()
RAINBOW = "red orange yellow green blue indigo violet".split()
CONTINENTS = [
    "Africa",
    "Antarctica",
    "Asia",
    "Australia",
    "Europe",
    "North America",
    "South America",
]
OCEANS = ["the Pacific", "the Atlantic", "the Indian Ocean", "the Southern Ocean", "the Arctic"]
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()

NAMES = (
    "Anna Ben Clara David Emma Felix Grace Hugo Ida Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tom "
    "Vera Will Zoe Alice Bob Carol Dan Eve Frank Ella Max Nina Oscar Peter Ruth Sara Tim Uma Yuki "
    "Akira Aisha Omar Ivan Maria José Chloé Zoë Björn Lena Marco Priya Ken Mei Ali Nora Finn Lily"
).split()

# Things to write about that have no lines of their own, to count, to name and to spell.
THINGS = (
    "dragon pirate banana sock volcano elevator giraffe penguin octopus cactus pumpkin spoon fork "
    "lemon carrot potato sandwich castle knight wizard ghost vampire unicorn princess queen king "
    "lighthouse museum hospital doctor nurse baker farmer sailor pilot soldier judge lawyer poet "
    "singer actor painter carpenter fisherman hammer nail ladder bucket broom towel soap sponge "
    "pillow blanket carpet sofa table drawer fridge toaster kettle bottle glass plate bowl knife "
    "button zipper glove scarf jacket ring necklace crown sword shield arrow helmet drum trumpet "
    "violin flute harp guitar radio television newspaper magazine pencil crayon eraser notebook "
    "calendar stamp ticket passport map compass anchor rope sail engine wheel tire truck tractor "
    "bus taxi helicopter balloon parachute submarine canoe ferry tunnel tower fountain statue "
    "pyramid temple church mosque palace prison factory mine well windmill fence gate barn stable "
    "hen rooster pig goat donkey camel lion tiger leopard monkey gorilla kangaroo koala panda "
    "squirrel hedgehog beaver otter seal shark crab lobster shrimp oyster jellyfish starfish worm "
    "beetle ladybug dragonfly mosquito scorpion lizard crocodile parrot eagle falcon pigeon "
    "peacock ostrich flamingo pelican stork sunflower tulip daisy lily orchid mushroom acorn nut "
    "pepper onion garlic tomato cucumber cabbage salad noodle pasta sausage bacon steak burger "
    "cookie candy jam butter cream yogurt milk juice wine beer water lamp bulb battery magnet "
    "lens telescope microscope laptop printer tablet modem router sensor drone laser satellite "
    "comet asteroid galaxy planet meteor eclipse gravity atom molecule crystal diamond ruby pearl "
    "gold silver copper iron steel marble clay brick cement sand dust mud swamp canyon cliff cave "
    "glacier avalanche earthquake tornado hurricane flood drought harvest wheat corn barley hay "
    "tax bill coin bank wallet budget meeting deadline email password puzzle riddle secret mask "
    "circus clown magician puppet toy doll swing slide playground picnic barbecue camping tent "
    "backpack hammock beard moustache haircut tooth dentist vaccine fever medicine bandage marathon "
    "tennis golf hockey skating skiing surfing yoga karate boxing wrestling gymnastics theatre "
    "opera comedy tragedy novel essay diary grammar comma alphabet logic algebra chemistry biology "
    "history philosophy democracy justice anger fear envy pride shame boredom curiosity luck fate "
    "magic shadow echo bubble feather bone skeleton fossil dinosaur mammoth robin"
).split()
PLURALS = (
    "dragons pirates bananas socks volcanoes penguins pumpkins castles ghosts wizards unicorns "
    "lighthouses museums trucks buses tunnels towers monkeys pandas squirrels hedgehogs sharks "
    "crabs beetles parrots eagles mushrooms noodles cookies magnets comets galaxies diamonds "
    "crystals caves glaciers taxes coins passwords puzzles riddles masks puppets tents dinosaurs "
    "shadows bubbles feathers bones buttons pencils maps engines wheels spoons carrots potatoes "
    "lemons teapots candles keys atoms lasers satellites printers batteries kings queens knights"
).split()
ADJECTIVES = (
    "red blue green old new small big tiny lost broken happy sad lazy brave quiet loud shiny dusty "
    "golden silver frozen warm cold hungry sleepy angry clever strange secret flying dancing "
    "invisible wooden purple yellow wet dry forgotten famous"
).split()
PLACES = (
    "London Paris Berlin Tokyo Rome Madrid Oslo Cairo Sydney Venice Kyoto Boston Chicago Prague "
    "Vienna Lisbon Dublin Warsaw Athens Moscow Delhi Lima Havana Nairobi Alaska Iceland Scotland "
    "Norway Japan Brazil Peru Egypt Mars Venus Saturn Jupiter"
).split()
SYLLABLES = (
    "ba be bi bo bu da de di do du fa fi fo ga go gu ka ke ki ko la le li lo lu ma me mi mo mu na "
    "ne ni no pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo wa wi za ze zi "
    "zo sh ch th st tr br gr pl qu ex un dr kl"
).split()
EMOJI = "🐱 🐶 🦊 ⭐ 🌙 🚀 🌸 🌳 🐟 🐦 🔥 🌈 🤖 🙂 🌊 🍎 🍕 ☕ 🎂 📚 🎵 👻 🐸 🐝 🐳 👍 🎉 🌍 💻 ❄️ ❤️ ☀️".split()
ACCENTED = (
    "café naïve über Straße piñata señor déjà vu crème brûlée façade smörgåsbord Zürich São Paulo "
    "Łódź žena čaj dåb æble ñandú jalapeño fiancée Noël Ελλάδα мир дом 日本 東京 俳句 你好 한국 שלום"
).split()
